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
-- opened (0: nothing later may join it), when the key expires, the sum of the counts, the newest
-- entry; then the older ones, oldest first. An entry is its instant, less the base, its count and, where anything was
-- ever on trial, the part that is. It takes 5 or 6 bytes for most quotas. The sum is of what is
-- stored, which may have left the window since.
--
-- What most requests need is one function without tables, `visit`: it was measured. What few need
-- unfolds the log into a list, writes it anew, and visits again.
--
-- Numbers are doubles, exact to 2^53. Nothing here turns one into text by itself: Lua keeps 14
-- digits then.

local TAG = 168
local HEADER = '<BBI7I6I6I4'
local HEADER_SIZE = 25
local QUOTA = '<I4I8'
local ROW = '<I4I4I4I4BI8'
local ANSWER = '<I4BI4I8I8'
local IN_FLIGHT = 60000000
local SECOND = 1000000

local redis, KEYS, spread, pack, unpack = redis, KEYS, unpack, struct.pack, struct.unpack
local type, byte, sub, format = type, string.byte, string.sub, string.format
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

local now
if ARGV[1] == '' then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
else
  now = tonumber(ARGV[1])
end
local replaced = 0
local get, call = redis.pcall, redis.call

-- How entries are packed whose fields have these widths; false where none have.
local shapes = {}
local function shape_of(widths)
  local shape = shapes[widths]
  if shape == nil then
    local at, count, held = floor(widths / 32), floor(widths / 4) % 8, widths % 4
    shape = false
    if at >= 4 and at <= 6 and (count == 1 or count == 2 or count == 4) and held <= 1 then
      local entry = 'I' .. at .. 'I' .. count .. 'I' .. held * count
      local size = at + count + held * count
      shape = {
        widths = widths,
        at = at,
        count = count,
        held = held,
        reach = 2 ^ (8 * at),
        entry = '<' .. entry,
        size = size,
        log = HEADER .. entry,
        first = HEADER_SIZE + size + 1,
      }
    end
    shapes[widths] = shape
  end
  return shape
end

local function count_width(count) return count < 2 ^ 8 and 1 or count < 2 ^ 16 and 2 or 4 end

local function quota_of(limit, window, resolution)
  -- An instant is at most two windows later than the base when it is encoded; room for twice that,
  -- so that encoding anew is rare.
  local at = window < 2 ^ 30 and 4 or window < 2 ^ 38 and 5 or 6
  local span = limit > resolution and ceil(window / resolution) or 1
  return {
    limit = limit,
    window = window,
    span = span,
    -- A key lives until its newest entry leaves the window, whatever else joins that.
    lives = window + span - 1,
    ttl = format('%.0f', ceil((window + span - 1) / 1000)),
    widths = at * 32 + count_width(limit) * 4,
  }
end

-- These widths, or wider ones where those of a quota are, or where something is on trial.
local function widened(shape, quota, trial)
  local wanted = shape_of(quota.widths)
  local held = (trial or shape.held > 0) and 1 or 0
  return shape_of(max(shape.at, wanted.at) * 32 + max(shape.count, wanted.count) * 4 + held)
end

-- The log at a key and its shape, or whether something foreign is there.
local function read(key)
  local raw = get('GET', key)
  if not raw then return nil, nil, false end
  if type(raw) == 'string' then
    local tag, widths = byte(raw, 1, 2)
    local shape = tag == TAG and widths and shape_of(widths)
    local older = shape and #raw + 1 - shape.first
    if older and older >= 0 and older % shape.size == 0 then return raw, shape, false end
  elseif not string.find(raw.err, 'WRONGTYPE', 1, true) then
    error(raw.err)
  end
  return nil, nil, true
end

-- The entries of a log, oldest first, from that which begins at `first`; and when the newest was
-- opened.
local function unfold(raw, shape, first)
  local _, _, base, opened, _, _, newest, newest_count, newest_held = unpack(shape.log, raw)
  local entries = {}
  while first <= #raw do
    local at, count, held
    at, count, held, first = unpack(shape.entry, raw, first)
    entries[#entries + 1] = { base + at, count, held }
  end
  entries[#entries + 1] = { base + newest, newest_count, newest_held }
  return entries, opened > 0 and base + opened or 0
end

-- Writes these, with the latest base that serves them.
local function write(key, quota, entries, opened, shape)
  local newest = table.remove(entries)
  if not newest then return call('DEL', key) end
  local base = min(entries[1] and entries[1][1] or newest[1], now)
  if opened > 0 then base = min(base, opened) end
  base = base - 1
  local sum, older = newest[2], {}
  for i, entry in ipairs(entries) do
    sum = sum + entry[2]
    older[i] = pack(shape.entry, entry[1] - base, entry[2], entry[3])
  end
  opened = opened > 0 and opened - base or 0
  local lives = max(newest[1] + quota.window - now, 1)
  local expires, at = now + lives - base, newest[1] - base
  local log = pack(shape.log, TAG, shape.widths, base, opened, expires, sum, at, newest[2], newest[3])
  call('SET', key, log .. table.concat(older), 'PX', format('%.0f', ceil(lives / 1000)))
end

local function pull_back(key, quota, raw, shape)
  local entries, opened = unfold(raw, shape, shape.first)
  local merged = { now, 0, 0 }
  while #entries > 0 and entries[#entries][1] >= now do
    local last = table.remove(entries)
    merged[2], merged[3] = merged[2] + last[2], merged[3] + last[3]
  end
  entries[#entries + 1] = merged
  local count = max(shape.count, count_width(merged[2]))
  shape = shape_of(shape.at * 32 + count * 4 + shape.held)
  write(key, quota, entries, min(opened, now), shape)
end

-- Microseconds until so much has become free. `first` is where the oldest live entry begins.
local function wait(window, needed, raw, shape, first)
  local _, _, base, _, _, _, newest, newest_count, newest_held = unpack(shape.log, raw)
  local freed, in_flight, leaves = 0, 0, nil
  while first <= #raw and (not leaves or shape.held > 0) do
    local at, count, held
    at, count, held, first = unpack(shape.entry, raw, first)
    freed = freed + count
    if freed >= needed then leaves = leaves or at end
    if now - base - at < IN_FLIGHT then in_flight = in_flight + held end
  end
  if now - base - newest < IN_FLIGHT then in_flight = in_flight + newest_held end
  local room = base + (leaves or newest) + window - now
  return in_flight >= needed and min(room, SECOND) or room
end

-- Of a request under several limits, what one would count, until all have said that they would.
local undecided

local function save(key, head, tail, ttl, foreign)
  if undecided then
    undecided[#undecided + 1] = { key, head, tail, ttl, foreign }
  elseif tail then
    call('SET', key, head .. tail, 'PX', ttl)
    if foreign then replaced = replaced + 1 end
  else
    -- To copy the older entries costs more than all else.
    call('SETRANGE', key, '0', head)
    if ttl then call('PEXPIRE', key, ttl) end
  end
end

-- Decides a request of this cost, made so many times, and counts it where there is room, at most
-- `most` times.
--
-- Returns how often it was counted, then what an answer says of the limit.
local function visit(key, quota, cost, times, trial, most)
  local limit, window = quota.limit, quota.window
  local raw, shape, foreign = read(key)
  -- Instants are told from the base here.
  local base, opened, expires, sum, newest, count, held = now - 1, 0, 0, 0, 0, 0, 0
  local first, older, oldest = 1, 0, 0
  if raw then
    local _, leaving
    _, _, base, opened, expires, sum, newest, count, held, first = unpack(shape.log, raw)
    if base + newest > now then
      pull_back(key, quota, raw, shape)
      return visit(key, quota, cost, times, trial, most)
    end
    older = (#raw + 1 - first) / shape.size
    local horizon = now - base - window
    while older > 0 do
      oldest, leaving = unpack(shape.entry, raw, first)
      if oldest > horizon then break end
      sum, older, first = sum - leaving, older - 1, first + shape.size
    end
    if older == 0 then
      oldest = newest
      if newest <= horizon then sum = 0 end
    end
  end

  local room = times
  if sum + cost * times > limit and cost > 0 then room = max(floor((limit - sum) / cost), 0) end
  local admitted = min(room, most)
  if admitted > 0 and cost > 0 then
    local more = cost * admitted
    local more_held = trial and more or 0
    if sum == 0 then
      base, first, older = now - 1, 1, 0
      shape = shape_of(quota.widths + (trial and 1 or 0))
    elseif shape.widths ~= quota.widths or trial or now - base >= shape.reach then
      local wide = widened(shape, quota, trial)
      if wide ~= shape or now - base >= shape.reach then
        local entries, opened = unfold(raw, shape, first)
        write(key, quota, entries, opened, wide)
        return visit(key, quota, cost, times, trial, most)
      end
    end
    local here, tail = now - base, nil
    -- What is at the same instant always joins, as a mark is found by it.
    if sum > 0 and (newest == here or opened > 0 and here - opened < quota.span) then
      count, held = count + more, held + more_held
      if first > shape.first then tail = sub(raw, first) end
    else
      tail = ''
      if sum > 0 then
        tail = sub(raw, first) .. pack(shape.entry, newest, count, held)
        older = older + 1
      end
      opened, count, held = here, more, more_held
    end
    newest, sum = here, sum + more
    if older == 0 then oldest = newest end
    local prolongs = tail or expires < here + window
    if prolongs then expires = here + quota.lives end
    local head =
      pack(shape.log, TAG, shape.widths, base, opened, expires, sum, newest, count, held)
    save(key, head, tail, prolongs and quota.ttl, foreign)
  end

  local fits, retry = cost == 0 or sum + cost <= limit, 0
  if not fits and admitted < times and cost <= limit and not undecided then
    if admitted > 0 then raw, shape = read(key) end
    retry = wait(window, sum + cost - limit, raw, shape, admitted > 0 and shape.first or first)
  end
  local reset = sum > 0 and base + oldest + window - now or 0
  return admitted, fits and 1 or 0, max(limit - sum, 0), reset, retry
end

local function settle(key, quota, cost, keep, mark)
  if cost == 0 or mark + quota.window <= now then return end
  local raw, shape = read(key)
  if not raw then return end
  local entries, opened = unfold(raw, shape, shape.first)
  for i, entry in ipairs(entries) do
    -- What has left the window can't be it: its mark would have, too.
    if entry[1] >= mark then
      if entry[1] - mark >= quota.span or entry[3] < cost then return end
      entry[3] = entry[3] - cost
      if not keep then entry[2] = entry[2] - cost end
      if entry[2] == 0 then
        table.remove(entries, i)
        opened = 0
      end
      return write(key, quota, entries, opened, shape)
    end
  end
end

local quotas, position = {}, 1
while position <= #ARGV[3] do
  local limit, window
  limit, window, position = unpack(QUOTA, ARGV[3], position)
  quotas[#quotas + 1] = quota_of(limit, window, max(tonumber(ARGV[2]), 1))
end

local packed, answers, row = ARGV[4], {}, 0
position = 1
while position <= #packed do
  local count, times, quota, cost, flag, mark
  count, times, quota, cost, flag, mark, position = unpack(ROW, packed, position)
  row, quota = row + 1, quotas[quota]
  if count == 1 then
    answers[row] = pack(ANSWER, visit(KEYS[row], quota, cost, times, flag == 1, times))
  elseif count == 0 then
    -- A clock that was set back is seen to first.
    visit(KEYS[row], quota, 0, 0, false, 0)
    settle(KEYS[row], quota, cost, flag == 1, mark)
    answers[row] = pack(ANSWER, visit(KEYS[row], quota, 0, 0, false, 0))
  else
    local rows, most = { { KEYS[row], quota, cost, times, flag == 1 } }, times
    for i = 2, count do
      local _
      _, _, quota, cost, flag, _, position = unpack(ROW, packed, position)
      rows[i] = { KEYS[row + i - 1], quotas[quota], cost, times, flag == 1 }
    end
    local function visit_each()
      local counted = most
      for i, each in ipairs(rows) do
        local key, quota, cost, times, trial = spread(each)
        local admitted, fits, remaining, reset, retry =
          visit(key, quota, cost, times, trial, most)
        answers[row + i - 1] = pack(ANSWER, admitted, fits, remaining, reset, retry)
        counted = min(counted, admitted)
      end
      return counted
    end
    undecided = {}
    local counted = visit_each()
    local writes = undecided
    undecided = nil
    if counted == times then
      for _, write in ipairs(writes) do save(spread(write, 1, 5)) end
    else
      most = counted
      visit_each()
    end
    row = row + count - 1
  end
end
return pack('<I8I8', now, replaced) .. table.concat(answers)
