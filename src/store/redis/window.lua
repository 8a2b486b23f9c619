-- The sliding window over a log of (instant, count), for a batch of decisions.
--
-- The twin of src/limit/window.rs, where the rules are told: a change here is a change there.
--
-- KEYS     every key of the batch, once
-- ARGV[1]  now in microseconds; empty: the server's time
-- ARGV[2]  the resolution M
-- ARGV[3…] the requests, one after the other; each is how many rows it has (0: one row, a hold to
--          settle), then its rows: index in KEYS, limit, window in microseconds, cost,
--          on trial or not (settle: keep or not), mark of the hold (take: 0)
-- returns  integers: now, how many foreign values were replaced, and four for each row: room or
--          not, remaining, microseconds until the first leaves, microseconds until room (-1: none)
--
-- A log is a string: TAG, the widths of an entry's fields, the base, when the newest entry was
-- opened (0: nothing later may join it), the sum of the counts; then the entries, oldest first: instant,
-- count and, where anything was ever on trial, the part that is. Instants are stored less the base.
-- An entry takes 5 or 6 bytes for most quotas. What a decision doesn't need is not unpacked.
--
-- Numbers are doubles, exact to 2^53. Nothing here turns one into text: Lua keeps 14 digits then.

local TAG = 167
local HEADER = '<BBI7I6I4'
local HEADER_SIZE = 19
local IN_FLIGHT = 60000000
local SECOND = 1000000

local now
if ARGV[1] == '' then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
else
  now = tonumber(ARGV[1])
end
local resolution = math.max(tonumber(ARGV[2]), 1)
local replaced = 0

-- Widths in bytes. An instant is at most two windows later than the base when it is encoded; twice
-- that, so that encoding anew is rare.
local function instant_width(window)
  if window < 2 ^ 30 then return 4 end
  if window < 2 ^ 38 then return 5 end
  return 6
end

local function count_width(limit)
  if limit < 2 ^ 8 then return 1 end
  if limit < 2 ^ 16 then return 2 end
  return 4
end

local function set_widths(log, at, count, held)
  log.at_width, log.count_width, log.held_width = at, count, held
  log.size = at + count + held
  log.format = '<I' .. at .. 'I' .. count .. (held > 0 and 'I' .. held or '')
end

local function entry(log, i)
  local at, count, held = struct.unpack(log.format, log.body, (i - 1) * log.size + 1)
  return at + log.base, count, log.held_width > 0 and held or 0
end

local function pack_entry(log, at, count, held)
  if log.held_width > 0 then return struct.pack(log.format, at - log.base, count, held) end
  return struct.pack(log.format, at - log.base, count)
end

-- Replaces entries first…last by what is given, a packed string.
local function splice(log, first, last, packed)
  log.body = string.sub(log.body, 1, (first - 1) * log.size) .. packed
    .. string.sub(log.body, last * log.size + 1)
  log.n = #log.body / log.size
end

-- Encodes all entries anew, with these widths and the latest base that serves them.
local function encode(log, entries, at_width, count_width, held_width)
  local base = math.min(entries[1] and entries[1][1] or now, now)
  if log.opened > 0 then base = math.min(base, log.opened) end
  log.base = base - 1
  set_widths(log, at_width, count_width, held_width)
  local packed = {}
  for i, e in ipairs(entries) do packed[i] = pack_entry(log, e[1], e[2], e[3]) end
  log.body, log.n = table.concat(packed), #entries
end

local function entries_of(log)
  local entries = {}
  for i = 1, log.n do entries[i] = { entry(log, i) } end
  return entries
end

local function decode(raw)
  if #raw < HEADER_SIZE then return nil end
  local tag, widths, base, opened, sum = struct.unpack(HEADER, raw)
  local at, count, held = math.floor(widths / 32), math.floor(widths / 4) % 8, widths % 4
  if tag ~= TAG or at < 4 or at > 6 or (count ~= 1 and count ~= 2 and count ~= 4) or held > 1 then
    return nil
  end
  local log = { base = base, opened = opened > 0 and base + opened or 0, sum = sum }
  set_widths(log, at, count, held * count)
  log.body = string.sub(raw, HEADER_SIZE + 1)
  log.n = #log.body / log.size
  if log.n < 1 or log.n % 1 ~= 0 then return nil end
  return log
end

local function empty()
  local log = { opened = 0, sum = 0, base = 0, body = '', n = 0 }
  set_widths(log, 4, 1, 0)
  return log
end

-- The log of KEYS[i]; read once per batch.
local logs = {}
local function log_of(i)
  local log = logs[i]
  if log then return log end
  local raw = redis.pcall('GET', KEYS[i])
  if not raw then
    log = empty()
  elseif type(raw) == 'string' then
    log = decode(raw)
  elseif not string.find(raw.err, 'WRONGTYPE', 1, true) then
    error(raw.err)
  end
  if not log then
    log = empty()
    log.foreign = true
  end
  logs[i] = log
  return log
end

-- A log with a window is one to be written.
local function pull_back(log, window)
  local entries, count, held = entries_of(log), 0, 0
  while #entries > 0 and entries[#entries][1] >= now do
    local last = table.remove(entries)
    count, held = count + last[2], held + last[3]
  end
  entries[#entries + 1] = { now, count, held }
  log.opened = math.min(log.opened, now)
  local width = count_width(log.sum)
  encode(log, entries, log.at_width, width, log.held_width > 0 and width or 0)
  log.window = window
end

local function advance(log, window)
  local dead = 0
  while dead < log.n do
    local at, count = entry(log, dead + 1)
    if at + window > now then break end
    dead, log.sum = dead + 1, log.sum - count
  end
  if dead > 0 then splice(log, 1, dead, '') end
  if log.n == 0 then log.opened = 0 end
  if log.n > 0 and entry(log, log.n) > now then pull_back(log, window) end
end

local function room_after(log, window, needed)
  local freed = 0
  for i = 1, log.n do
    local at, count = entry(log, i)
    freed = freed + count
    if freed >= needed then return at + window - now end
  end
  return window
end

local function in_flight(log)
  local sum = 0
  if log.held_width == 0 then return 0 end
  for i = 1, log.n do
    local at, _, held = entry(log, i)
    if now - at < IN_FLIGHT then sum = sum + held end
  end
  return sum
end

local function decide(log, row, cost)
  local limit, window, used = row.limit, row.window, log.sum
  local allowed = cost == 0 or used + cost <= limit
  local retry = -1
  if not allowed and cost <= limit then
    retry = room_after(log, window, used + cost - limit)
    if used - in_flight(log) + cost <= limit then retry = math.min(retry, SECOND) end
  end
  return {
    allowed and 1 or 0,
    math.max(limit - used, 0),
    log.n > 0 and entry(log, 1) + window - now or 0,
    retry,
  }
end

local function span(row)
  if row.limit <= resolution then return 1 end
  return math.floor((row.window + resolution - 1) / resolution)
end

-- Makes entries wide enough for what may be written now.
local function widen(log, row)
  local at = math.max(log.at_width, instant_width(row.window))
  local count = math.max(log.count_width, count_width(row.limit))
  local held = (row.flag or log.held_width > 0) and count or 0
  if log.n == 0 or at ~= log.at_width or count ~= log.count_width or held ~= log.held_width
    or now - log.base >= 2 ^ (8 * at)
  then
    encode(log, entries_of(log), at, count, held)
  end
end

local function admit(log, row)
  if row.cost == 0 then return end
  local held = row.flag and row.cost or 0
  widen(log, row)
  -- What is at the same instant always joins, as a mark is found by it.
  if log.n > 0 and (now - log.opened < span(row) or entry(log, log.n) == now) then
    local _, count, holds = entry(log, log.n)
    splice(log, log.n, log.n, pack_entry(log, now, count + row.cost, holds + held))
  else
    log.opened = now
    splice(log, log.n + 1, log.n, pack_entry(log, now, row.cost, held))
  end
  log.sum = log.sum + row.cost
  log.window = row.window
end

local function settle(log, row)
  if row.mark + row.window <= now then return end
  for i = 1, log.n do
    local at, count, held = entry(log, i)
    if at >= row.mark then
      if at - row.mark >= span(row) or held < row.cost or row.cost == 0 then return end
      if not row.flag then
        count = count - row.cost
        log.sum = log.sum - row.cost
      end
      if count > 0 then
        splice(log, i, i, pack_entry(log, at, count, held - row.cost))
      else
        splice(log, i, i, '')
        log.opened = 0
      end
      log.window = row.window
      return
    end
  end
end

local reply = { now, 0 }
local function answer(decision)
  for i = 1, 4 do reply[#reply + 1] = decision[i] end
end

local position = 3
local function read_row()
  local p = position
  position = p + 6
  return {
    log = log_of(tonumber(ARGV[p])),
    limit = tonumber(ARGV[p + 1]),
    window = tonumber(ARGV[p + 2]),
    cost = tonumber(ARGV[p + 3]),
    flag = ARGV[p + 4] == '1',
    mark = tonumber(ARGV[p + 5]),
  }
end

while position <= #ARGV do
  local count = tonumber(ARGV[position])
  position = position + 1
  if count == 0 then
    local row = read_row()
    advance(row.log, row.window)
    settle(row.log, row)
    answer(decide(row.log, row, 0))
  else
    local rows, decisions, allowed = {}, {}, true
    for i = 1, count do
      local row = read_row()
      advance(row.log, row.window)
      rows[i], decisions[i] = row, decide(row.log, row, row.cost)
      allowed = allowed and decisions[i][1] == 1
    end
    for i, row in ipairs(rows) do
      if allowed then
        admit(row.log, row)
        decisions[i] = decide(row.log, row, 0)
      end
      answer(decisions[i])
    end
  end
end

-- A key lives until its newest entry leaves the window: a whole window after a request was counted.
for i, log in pairs(logs) do
  if log.window then
    if log.foreign then replaced = replaced + 1 end
    if log.n == 0 then
      redis.call('DEL', KEYS[i])
    else
      local ttl = math.max(math.ceil((entry(log, log.n) + log.window - now) / 1000), 1)
      local widths = log.at_width * 32 + log.count_width * 4 + (log.held_width > 0 and 1 or 0)
      local opened = log.opened > 0 and log.opened - log.base or 0
      local value = struct.pack(HEADER, TAG, widths, log.base, opened, log.sum) .. log.body
      redis.call('SET', KEYS[i], value, 'PX', ttl)
    end
  end
end
reply[2] = replaced
return reply
