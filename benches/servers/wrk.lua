-- Presents the tokens of a file in turn; each thread begins elsewhere.
local threads = 0

function setup(thread)
  thread:set('number', threads)
  threads = threads + 1
end

function init(args)
  requests = {}
  for token in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format('GET', '/', { Authorization = 'Bearer ' .. token })
  end
  at = number * 499
end

function request()
  at = at + 1
  return requests[at % #requests + 1]
end

function done(summary, latency)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format('measured %d %d %d %d %d\n', summary.requests, summary.duration,
    latency:percentile(99), errors.status, broken))
end
