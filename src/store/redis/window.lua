-- The sliding window over a log of (instant, count), for a batch of requests.
--
-- The twin of src/limit/window.rs, where the rules are told: a change here is a change there.
--
-- KEYS     the key of each row
-- ARGV[1]  now in microseconds; empty: the server's time
-- ARGV[2]  the resolution M
-- ARGV[3]  the quotas, packed: limit, window in microseconds
-- ARGV[4]  the rows, packed. A request has one for each of its limits: how many rows the request has
--          (0: one row, a hold to settle), how often it is made, which quota, cost, on trial or not
--          (settle: keep or not), mark of the hold (take: 0)
-- returns  packed: now, how many foreign values were replaced; then for each row: how often the
--          request was admitted, room for one more or not, remaining, microseconds until the first
--          leaves, microseconds until room (0: never, or now)
--
-- A log is a string: TAG, the widths of an entry's fields, the base, when the newest entry was
-- opened (0: nothing later may join it), the sum of the counts, the newest entry; then the older
-- ones, oldest first. An entry is its instant, less the base, its count and, where anything was
-- ever on trial, the part that is. It takes 5 or 6 bytes for most quotas. What a decision doesn't
-- need is not unpacked.
--
-- Numbers are doubles, exact to 2^53. Nothing here turns one into text: Lua keeps 14 digits then.

local TAG = 168
local HEADER = '<BBI7I6I4'
local HEADER_SIZE = 19
local QUOTA = '<I4I8'
local ROW = '<I4I4I4I4BI8'
local DECISION = '<I4BI4I8I8'
local IN_FLIGHT = 60000000
local SECOND = 1000000

local redis, pack, unpack = redis, struct.pack, struct.unpack
local sub, floor, ceil, max, min = string.sub, math.floor, math.ceil, math.max, math.min

local now
if ARGV[1] == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
else
  now = tonumber(ARGV[1])
end
local replaced = 0

local quotas = {}
do
  local resolution, position = max(tonumber(ARGV[2]), 1), 1
  while position <= #ARGV[3] do
    local limit, window
    limit, window, position = unpack(QUOTA, ARGV[3], position)
    quotas[#quotas + 1] = {
      limit = limit,
      window = window,
      span = limit > resolution and ceil(window / resolution) or 1,
      ttl = string.format('%.0f', ceil(window / 1000)),
      -- In bytes. An instant is at most two windows later than the base when it is encoded; twice
      -- that, so that encoding anew is rare.
      at = window < 2 ^ 30 and 4 or window < 2 ^ 38 and 5 or 6,
      count = limit < 2 ^ 8 and 1 or limit < 2 ^ 16 and 2 or 4,
    }
  end
end

-- How entries of these widths are packed; nil where there are none such.
local shapes = {}
local function shape_of(widths)
  local shape = shapes[widths]
  if shape then return shape end
  local at, count, held = floor(widths / 32), floor(widths / 4) % 8, widths % 4
  if at < 4 or at > 6 or (count ~= 1 and count ~= 2 and count ~= 4) or held > 1 then return nil end
  local entry = 'I' .. at .. 'I' .. count .. 'I' .. held * count
  shape = {
    widths = widths,
    at = at,
    count = count,
    held = held,
    reach = 2 ^ (8 * at),
    size = at + count * (1 + held),
    entry = '<' .. entry,
    log = HEADER .. entry,
  }
  shapes[widths] = shape
  return shape
end

local function widths_of(at, count, held) return at * 32 + count * 4 + held end

-- Finds the oldest entry anew. `raw` has `older` entries from `first` on.
local function find_oldest(log)
  if log.older > 0 then
    local at, count = unpack(log.shape.entry, log.raw, log.first)
    log.oldest_at, log.oldest_count = log.base + at, count
  end
end

local function clear(log)
  log.sum, log.opened, log.older, log.raw, log.first = 0, 0, 0, '', 1
  log.at, log.count, log.held = 0, 0, 0
end

local function decode(log, raw)
  local shape = shape_of(string.byte(raw, 2) or 0)
  local size = shape and #raw - HEADER_SIZE - shape.size
  if not size or size < 0 or size % shape.size > 0 or string.byte(raw) ~= TAG then return false end
  local _, base, opened, at
  _, _, base, opened, log.sum, at, log.count, log.held, log.first = unpack(shape.log, raw)
  log.shape, log.raw, log.older, log.base = shape, raw, size / shape.size, base
  log.opened, log.at = opened > 0 and base + opened or 0, base + at
  find_oldest(log)
  return true
end

local function load(log, key)
  log.key, log.foreign, log.changed = key, false, false
  local raw = redis.pcall('GET', key)
  if raw and type(raw) ~= 'string' then
    if not string.find(raw.err, 'WRONGTYPE', 1, true) then error(raw.err) end
    raw, log.foreign = nil, true
  elseif raw and decode(log, raw) then
    return
  end
  log.foreign = log.foreign or raw
  log.shape, log.base = shape_of(widths_of(4, 1, 0)), 0
  clear(log)
end

-- All entries, oldest first, the newest last.
local function entries_of(log)
  local entries, position = {}, log.first
  for i = 1, log.older do
    local at, count, held
    at, count, held, position = unpack(log.shape.entry, log.raw, position)
    entries[i] = { log.base + at, count, held }
  end
  if log.sum > 0 then entries[#entries + 1] = { log.at, log.count, log.held } end
  return entries
end

-- Puts these in place of the entries, with the latest base that serves them.
local function encode(log, entries, shape)
  local newest = table.remove(entries)
  if not newest then return clear(log) end
  local base = min(entries[1] and entries[1][1] or newest[1], now)
  if log.opened > 0 then base = min(base, log.opened) end
  base = base - 1
  local packed = {}
  for i, entry in ipairs(entries) do
    packed[i] = pack(shape.entry, entry[1] - base, entry[2], entry[3])
  end
  log.shape, log.base, log.raw, log.first, log.older = shape, base, table.concat(packed), 1, #packed
  log.at, log.count, log.held = newest[1], newest[2], newest[3]
  find_oldest(log)
end

local function pull_back(log)
  local entries, merged = entries_of(log), { now, 0, 0 }
  while #entries > 0 and entries[#entries][1] >= now do
    local last = table.remove(entries)
    merged[2], merged[3] = merged[2] + last[2], merged[3] + last[3]
  end
  entries[#entries + 1] = merged
  log.opened = min(log.opened, now)
  local shape = log.shape
  -- What was counted one by one may need more room together.
  local count = max(shape.count, log.sum < 2 ^ 8 and 1 or log.sum < 2 ^ 16 and 2 or 4)
  encode(log, entries, shape_of(widths_of(shape.at, count, shape.held)))
  log.changed = true
end

local function advance(log, window)
  local horizon = now - window
  while log.older > 0 and log.oldest_at <= horizon do
    log.sum, log.older = log.sum - log.oldest_count, log.older - 1
    log.first = log.first + log.shape.size
    find_oldest(log)
  end
  if log.sum > 0 and log.at <= horizon then clear(log) end
  if log.at > now then pull_back(log) end
end

local function in_flight(log)
  local sum = 0
  if log.shape.held == 0 then return 0 end
  for _, entry in ipairs(entries_of(log)) do
    if now - entry[1] < IN_FLIGHT then sum = sum + entry[3] end
  end
  return sum
end

-- Microseconds until the same request is admitted; 0: never.
local function wait(log, quota, cost)
  if cost > quota.limit then return 0 end
  local needed, freed, position, leaves = log.sum + cost - quota.limit, 0, log.first, log.at
  for _ = 1, log.older do
    local at, count, _
    at, count, _, position = unpack(log.shape.entry, log.raw, position)
    freed = freed + count
    if freed >= needed then
      leaves = log.base + at
      break
    end
  end
  local room = leaves + quota.window - now
  return in_flight(log) >= needed and min(room, SECOND) or room
end

-- Counts a request that was admitted. The widths and the base must serve what is written now.
local function admit(log, quota, cost, held)
  local shape = log.shape
  if log.sum == 0 or shape.at < quota.at or shape.count < quota.count
    or (held > 0 and shape.held == 0) or now - log.base >= shape.reach
  then
    local keeps = (held > 0 or shape.held > 0) and 1 or 0
    local widths = widths_of(max(shape.at, quota.at), max(shape.count, quota.count), keeps)
    if log.sum == 0 then
      log.shape, log.base = shape_of(widths), now - 1
    else
      encode(log, entries_of(log), shape_of(widths))
    end
    shape = log.shape
  end
  -- What is at the same instant always joins, as a mark is found by it.
  if log.sum > 0 and (now - log.opened < quota.span or log.at == now) then
    log.count, log.held = log.count + cost, log.held + held
  else
    if log.sum > 0 then
      local newest = pack(shape.entry, log.at - log.base, log.count, log.held)
      log.raw, log.first, log.older = sub(log.raw, log.first) .. newest, 1, log.older + 1
      find_oldest(log)
    end
    log.opened, log.count, log.held = now, cost, held
  end
  log.at, log.sum = now, log.sum + cost
  log.changed = true
end

local function settle(log, quota, cost, keep, mark)
  if cost == 0 or mark + quota.window <= now then return end
  local entries = entries_of(log)
  for i, entry in ipairs(entries) do
    if entry[1] >= mark then
      if entry[1] - mark >= quota.span or entry[3] < cost then return end
      entry[3] = entry[3] - cost
      if not keep then
        entry[2], log.sum = entry[2] - cost, log.sum - cost
      end
      if entry[2] == 0 then
        table.remove(entries, i)
        log.opened = 0
      end
      encode(log, entries, log.shape)
      log.changed = true
      return
    end
  end
end

-- A key lives until its newest entry leaves the window: a whole window after a request was counted.
local function store(log, quota)
  if log.foreign then replaced = replaced + 1 end
  if log.sum == 0 then return redis.call('DEL', log.key) end
  local ttl = quota.ttl
  if log.at < now then
    ttl = string.format('%.0f', max(ceil((log.at + quota.window - now) / 1000), 1))
  end
  local shape, opened = log.shape, log.opened > 0 and log.opened - log.base or 0
  local value = pack(shape.log, TAG, shape.widths, log.base, opened, log.sum, log.at - log.base, log.count, log.held)
  redis.call('SET', log.key, value .. sub(log.raw, log.first), 'PX', ttl)
end

local function answer(log, quota, cost, admitted, refused)
  local room = cost == 0 or log.sum + cost <= quota.limit
  local oldest = log.older > 0 and log.oldest_at or log.at
  return pack(
    DECISION,
    admitted,
    room and 1 or 0,
    max(quota.limit - log.sum, 0),
    log.sum > 0 and oldest + quota.window - now or 0,
    (refused and not room) and wait(log, quota, cost) or 0
  )
end

local rows, replies, row, position = {}, {}, 0, 1
while position <= #ARGV[4] do
  local n, count, times, admitted = 0, nil, nil, nil
  repeat
    n, row = n + 1, row + 1
    local log = rows[n]
    if not log then
      log = {}
      rows[n] = log
    end
    local quota, flag
    count, times, quota, log.cost, flag, log.mark, position = unpack(ROW, ARGV[4], position)
    quota = quotas[quota]
    log.quota, log.flag = quota, flag == 1
    load(log, KEYS[row])
    advance(log, quota.window)
    local room = times
    if log.cost > 0 then room = floor((quota.limit - log.sum) / log.cost) end
    admitted = max(min(room, admitted or times), 0)
  until n >= count
  for i = 1, n do
    local log = rows[i]
    local quota, cost = log.quota, log.cost
    if count == 0 then
      settle(log, quota, cost, log.flag, log.mark)
      cost, admitted = 0, 0
    elseif admitted > 0 and cost > 0 then
      admit(log, quota, cost * admitted, log.flag and cost * admitted or 0)
    end
    if log.changed then store(log, quota) end
    replies[#replies + 1] = answer(log, quota, cost, admitted, admitted < times)
  end
end
return pack('<I8I8', now, replaced) .. table.concat(replies)
