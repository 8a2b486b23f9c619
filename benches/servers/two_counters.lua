-- A sliding window of two counters, as it is usually written.
-- KEYS[1]: whom to count. ARGV: limit, window in seconds, time of day in seconds.
local limit, window, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local at = math.floor(now / window)
local this, last = KEYS[1] .. ':' .. at, KEYS[1] .. ':' .. (at - 1)
local counts = redis.call('MGET', this, last)
local left = 1 - (now % window) / window
if (tonumber(counts[1]) or 0) + (tonumber(counts[2]) or 0) * left >= limit then
  return 0
end
redis.call('INCR', this)
redis.call('EXPIRE', this, 2 * window)
return 1
