-- The sliding window over a log of (instant, count), for a batch of requests.
--
-- The twin of src/limit/window.rs, where the rules are told: a change here is a change there.
--
-- KEYS     the key of each row
-- ARGV[1]  now in microseconds; empty: the server's time
-- ARGV[2]  the resolution M
-- ARGV[3]  the quotas, packed: limit, window in microseconds
-- ARGV[4]  the rows, packed. A request has one for each of its limits: how many rows the request has
--          (0: one row, something to settle), how often it is made, which quota, cost, what of it (a
--          take: 1 is on trial; a settle: 0 is given back, 1 is kept, 2 is what is left of a
--          lease, 3 is all that there is), and a number (a take: how long a lease is asked for, in microseconds, of which
--          the request is made as often as there may be; a settle: the mark)
-- returns  packed: now, how many foreign values were replaced; then for each row: how often the
--          request was admitted, room for one more or not, remaining, microseconds until the first
--          leaves, microseconds until room (0: never, or now)
--
-- A log is a string: TAG, the widths of an entry's fields, the base, when the newest entry was
-- opened (0: nothing later may join it), when the key expires, the longest window by which anything
-- was counted, the sum of the counts, the newest entry; then the older ones, oldest first. An entry
-- is its instant, less the base, its count and, where anything was ever on trial, the part that is.
-- It takes 5 or 6 bytes for most quotas. The sum is of what is stored, which may have left the
-- window since. What has left the longest window is dropped.
--
-- A lease is counted at its end, which is later than now: no admission made by it is older here
-- than it really is. Such a log has a tag of its own: until its newest instant has come, all that is
-- counted joins that.
--
-- What most requests need is one function without tables, `visit`: it was measured. What few need
-- unfolds the log into a list, writes it anew, and visits again: once. What asks for that again is
-- none of ours, whatever it looks like, and what is not ours is replaced.
--
-- Numbers are doubles, exact to 2^53. Nothing here turns one into text by itself: Lua keeps 14
-- digits then.

local TAG, LEASED = 169, 170
local HEADER = '<BBI7I6I6I6I6'
local HEADER_SIZE = 33
local QUOTA = '<I4I8'
local ROW = '<I4I4I4I4BI8'
local ANSWER = '<I4BI4I8I8'
local IN_FLIGHT = 60000000
local SECOND = 1000000
-- No instant is later, and no window longer.
local LAST_INSTANT, LONGEST_WINDOW = 2 ^ 52, 2 ^ 45
-- A lease takes at most this part of what is left, and lasts at most that part of a window, and a
-- second.
local OF_ROOM, OF_WINDOW = 16, 64
-- Keys expire by milliseconds.
local MILLISECOND = 1000
-- How a key is visited: as it is, after it was written anew, or as if there were nothing.
local AS_IT_IS, ANEW, BLANK = 0, 1, 2

local redis, KEYS, spread, pack, unpack = redis, KEYS, unpack, struct.pack, struct.unpack
local type, byte, sub, format = type, string.byte, string.sub, string.format
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

-- No log is longer: twice as many entries of most bytes as two windows make, and room for those of a
-- server that has a higher resolution.
local RESOLUTION = max(tonumber(ARGV[2]), 1)
local MOST_BYTES = 14 * 8 * max(RESOLUTION, 256)
-- Only quotas of several windows make more entries than this: twice what one of them has, and half as
-- much again as is left then.
local MOST_ENTRIES = 6 * RESOLUTION + 6

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
    ttl = format('%.0f', ceil(window / 1000)),
    widths = at * 32 + count_width(limit) * 4,
  }
end

-- These widths, or wider ones where those of a quota are, or where something is on trial.
local function widened(shape, quota, trial)
  local wanted = shape_of(quota.widths)
  local held = (trial or shape.held > 0) and 1 or 0
  return shape_of(max(shape.at, wanted.at) * 32 + max(shape.count, wanted.count) * 4 + held)
end

local function milliseconds(micros) return format('%.0f', ceil(max(micros, 1) / 1000)) end

-- The log at a key and its shape, or whether something foreign is there.
local function read(key)
  local raw = get('GET', key)
  if not raw then return nil, nil, false end
  if type(raw) == 'string' then
    local tag, widths = byte(raw, 1, 2)
    local shape = (tag == TAG or tag == LEASED) and widths and shape_of(widths)
    local older = shape and #raw + 1 - shape.first
    if older and older >= 0 and older % shape.size == 0 and #raw <= MOST_BYTES then
      return raw, shape, false
    end
  elseif not string.find(raw.err, 'WRONGTYPE', 1, true) then
    error(raw.err)
  end
  return nil, nil, true
end

-- A log whose entries are a list, oldest first.
local function unfold(raw, shape)
  local tag, _, base, opened, _, longest, _, newest, count, held = unpack(shape.log, raw)
  local entries, first = {}, shape.first
  while first <= #raw do
    local at, count, held
    at, count, held, first = unpack(shape.entry, raw, first)
    entries[#entries + 1] = { base + at, count, held }
  end
  entries[#entries + 1] = { base + newest, count, held }
  opened = opened > 0 and base + opened or 0
  return { tag = tag, longest = longest, opened = opened, entries = entries }
end

-- Writes a log, with the latest base that serves it.
local function write(key, log, shape)
  local entries, opened = log.entries, log.opened
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
  local lives, at = max(newest[1] + log.longest - now, 1), newest[1] - base
  local head = pack(shape.log, log.tag, shape.widths, base, opened, now + lives - base,
    log.longest, sum, at, newest[2], newest[3])
  call('SET', key, head .. table.concat(older), 'PX', milliseconds(lives))
end

-- Merges what has left this window to what the longest one needs, by spans that lie fixed: what was
-- merged before gets no later by being merged again. Says the highest count.
local function thin(log, window)
  local span, thinner, last, highest = ceil(log.longest / RESOLUTION), {}, nil, 0
  for _, entry in ipairs(log.entries) do
    if last and entry[1] + window <= now and last[3] == 0 and entry[3] == 0
      and floor(last[1] / span) == floor(entry[1] / span)
    then
      last[1], last[2] = entry[1], last[2] + entry[2]
    else
      thinner[#thinner + 1], last = entry, entry
    end
    highest = max(highest, last[2])
  end
  log.entries = thinner
  return highest
end

-- What is later than an instant becomes that; in a shape that serves what follows, too.
local function pull_back(key, raw, shape, wide, latest)
  local log = unfold(raw, shape)
  local entries, merged = log.entries, { latest, 0, 0 }
  while #entries > 0 and entries[#entries][1] >= latest do
    local last = table.remove(entries)
    merged[2], merged[3] = merged[2] + last[2], merged[3] + last[3]
  end
  entries[#entries + 1] = merged
  log.opened = min(log.opened, latest)
  local count = max(wide.count, count_width(merged[2]))
  write(key, log, shape_of(wide.at * 32 + count * 4 + wide.held))
end

-- Microseconds until so much has become free. `first` is where the oldest live entry begins.
local function wait(window, needed, raw, shape, first)
  local _, _, base, _, _, _, _, newest, newest_count, newest_held = unpack(shape.log, raw)
  local freed, in_flight, leaves = 0, 0, nil
  while first <= #raw and (not leaves or shape.held > 0) do
    local at, count, held
    at, count, held, first = unpack(shape.entry, raw, first)
    freed = freed + count
    if freed >= needed then leaves = leaves or at end
    if now - base - at < IN_FLIGHT then in_flight = in_flight + held end
  end
  if now - base - newest < IN_FLIGHT then in_flight = in_flight + newest_held end
  local room = max(base + min(leaves or newest, newest) + window - now, 1)
  return in_flight >= needed and min(room, SECOND) or room
end

-- Of a request under several limits, what one would count, until all have said that they would.
local undecided

-- Writes a log whose key lives so long, or, without a tail, its head: then the key may live as long as
-- it does.
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
-- `most` times; for a lease that lasts so long, where that is not 0.
--
-- Returns how often it was counted, then what an answer says of the limit.
local function visit(key, quota, cost, times, trial, most, lease, how)
  local limit, window = quota.limit, quota.window
  local raw, shape, foreign = nil, nil, true
  if how ~= BLANK then raw, shape, foreign = read(key) end
  -- Instants are told from the base here.
  local base, opened, expires, longest, sum = now - 1, 0, 0, window, 0
  local newest, count, held = 0, 0, 0
  local first, older, oldest, ahead = 1, 0, 0, false
  if raw then
    local tag, leaving, _
    tag, _, base, opened, expires, longest, sum, newest, count, held, first = unpack(shape.log, raw)
    local latest = now - base
    if tag == LEASED then
      ahead, latest = newest > latest, latest + min(ceil(longest / OF_WINDOW), SECOND)
    end
    local odd = base > LAST_INSTANT or opened > newest or longest == 0 or longest > LONGEST_WINDOW
      or held > count or expires > newest + 2 * LONGEST_WINDOW
    if not odd and newest > latest then
      odd = how == ANEW
      if not odd then
        pull_back(key, raw, shape, widened(shape, quota, trial), base + latest)
        return visit(key, quota, cost, times, trial, most, lease, ANEW)
      end
    end
    older = (#raw + 1 - first) / shape.size
    local horizon = now - base - longest
    if newest <= horizon then
      sum = 0
    else
      while older > 0 do
        oldest, leaving = unpack(shape.entry, raw, first)
        if oldest > horizon then break end
        sum, older, first = sum - leaving, older - 1, first + shape.size
      end
      if older == 0 then
        oldest, odd = newest, odd or sum ~= count
      else
        odd = odd or oldest > newest or sum < count
      end
    end
    if odd then return visit(key, quota, cost, times, trial, most, lease, BLANK) end
  end

  -- What is live by this window: all that is kept, unless a longer one keeps more.
  local used, live, oldest_live, older_live = sum, first, oldest, older
  if sum > 0 and window < longest then
    local horizon, leaving = now - base - window, nil
    while older_live > 0 do
      oldest_live, leaving = unpack(shape.entry, raw, live)
      if oldest_live > horizon then break end
      used, older_live, live = used - leaving, older_live - 1, live + shape.size
    end
    if older_live == 0 then
      oldest_live = newest
      if newest <= horizon then used = 0 end
    end
    used = max(used, 0)
  end

  local room = times
  if used + cost * times > limit and cost > 0 then room = max(floor((limit - used) / cost), 0) end
  local admitted = min(room, most)
  if lease > 0 and admitted > 0 then
    -- Near the limit it takes no more than what is asked for now, and no lease.
    admitted = min(admitted, max(floor((limit - used) / cost / OF_ROOM), 1))
    if admitted == 1 then lease = 0 end
  end
  if admitted > 0 and cost > 0 then
    local more = cost * admitted
    local more_held = trial and more or 0
    if sum == 0 then
      base, opened, expires, longest, first, older = now - 1, 0, 0, window, 1, 0
      newest, ahead = 0, false
      shape = shape_of(quota.widths + (trial and 1 or 0))
    else
      local far = max(now - base + lease, newest) >= shape.reach
      local crowded = older > MOST_ENTRIES and window < longest and how == AS_IT_IS
      local wide = shape
      if shape.widths ~= quota.widths or trial then wide = widened(shape, quota, trial) end
      if wide ~= shape or far or crowded then
        if how == AS_IT_IS then
          local log = unfold(raw, shape)
          if crowded then
            local count = max(wide.count, count_width(thin(log, window)))
            wide = shape_of(wide.at * 32 + count * 4 + wide.held)
          end
          write(key, log, wide)
        end
        return visit(key, quota, cost, times, trial, most, lease, how + 1)
      end
    end
    local here, tail = now - base + lease, nil
    if ahead then here = max(here, newest) end
    -- What is at the same instant always joins, as a mark is found by it.
    local joins = sum > 0 and (newest == here or opened > 0 and here - opened < quota.span)
    if joins then
      count, held = count + more, held + more_held
      if first > shape.first then tail = sub(raw, first) end
    else
      tail = ''
      if sum > 0 then tail = sub(raw, first) .. pack(shape.entry, newest, count, held) end
      opened, count, held = here, more, more_held
    end
    if used == 0 or joins and older_live == 0 then oldest_live = here end
    newest, sum, used = here, sum + more, used + more
    longest = max(longest, window)
    ahead = here > now - base
    -- The key lives until its newest entry leaves the window: to the end of that millisecond, so that what
    -- comes in the same one leaves it as it is.
    local ttl
    local leaves = here + longest
    if tail or expires < leaves or expires >= leaves + MILLISECOND then
      expires = leaves + MILLISECOND - 1 - (base + leaves) % MILLISECOND
      ttl = longest == window and not ahead and quota.ttl or milliseconds(leaves - (now - base))
    end
    local head = pack(shape.log, ahead and LEASED or TAG, shape.widths, base, opened, expires,
      longest, sum, newest, count, held)
    save(key, head, tail, ttl, foreign)
  elseif raw and times > 0 and not undecided and call('PTTL', key) == -1 then
    call('PEXPIRE', key, milliseconds(newest + longest - (now - base)))
  end

  local fits, retry = cost == 0 or used + cost <= limit, 0
  if not fits and admitted < times and cost <= limit and not undecided then
    if admitted > 0 then
      raw, shape = read(key)
      live = shape.first
    end
    retry = wait(window, used + cost - limit, raw, shape, live)
  end
  local reset = used > 0 and max(base + min(oldest_live, newest) + window - now, 0) or 0
  return admitted, fits and 1 or 0, max(limit - used, 0), reset, retry
end

local function settle(key, quota, cost, what, mark)
  if what == 3 then return call('DEL', key) end
  if cost == 0 or mark + quota.window <= now then return end
  local raw, shape = read(key)
  if not raw then return end
  local log = unfold(raw, shape)
  -- A lease may have joined a later one, or others it.
  local span = what == 2 and min(ceil(log.longest / OF_WINDOW), SECOND) * 2 or quota.span
  for i, entry in ipairs(log.entries) do
    -- What has left the window can't be it: its mark would have, too.
    if entry[1] >= mark then
      if entry[1] - mark >= span or entry[2] < cost then return end
      if what ~= 2 then
        if entry[3] < cost then return end
        entry[3] = entry[3] - cost
      elseif entry[2] - entry[3] < cost then
        return
      end
      if what ~= 1 then entry[2] = entry[2] - cost end
      if entry[2] == 0 then
        table.remove(log.entries, i)
        log.opened = 0
      end
      return write(key, log, shape)
    end
  end
end

local quotas, position = {}, 1
while position <= #ARGV[3] do
  local limit, window
  limit, window, position = unpack(QUOTA, ARGV[3], position)
  quotas[#quotas + 1] = quota_of(limit, window, RESOLUTION)
end

local answers = {}
-- Of a request under several limits.
local of, costs, trials = {}, {}, {}

local function visit_each(row, count, times, most)
  local counted = most
  for i = 1, count do
    local admitted, fits, remaining, reset, retry =
      visit(KEYS[row + i], of[i], costs[i], times, trials[i], most, 0, AS_IT_IS)
    answers[row + i] = pack(ANSWER, admitted, fits, remaining, reset, retry)
    if admitted < counted then counted = admitted end
  end
  return counted
end

local packed, row = ARGV[4], 0
position = 1
while position <= #packed do
  local count, times, quota, cost, flag, number
  count, times, quota, cost, flag, number, position = unpack(ROW, packed, position)
  quota = quotas[quota]
  if count == 1 then
    row = row + 1
    answers[row] =
      pack(ANSWER, visit(KEYS[row], quota, cost, times, flag == 1, times, number, AS_IT_IS))
  elseif count == 0 then
    row = row + 1
    -- A clock that was set back is seen to first.
    visit(KEYS[row], quota, 0, 0, false, 0, 0, AS_IT_IS)
    settle(KEYS[row], quota, cost, flag, number)
    answers[row] = pack(ANSWER, visit(KEYS[row], quota, 0, 0, false, 0, 0, AS_IT_IS))
  else
    of[1], costs[1], trials[1] = quota, cost, flag == 1
    for i = 2, count do
      local _
      _, _, quota, cost, flag, _, position = unpack(ROW, packed, position)
      of[i], costs[i], trials[i] = quotas[quota], cost, flag == 1
    end
    undecided = {}
    local counted = visit_each(row, count, times, times)
    local writes = undecided
    undecided = nil
    if counted == times then
      for i = 1, #writes do save(spread(writes[i], 1, 5)) end
    else
      visit_each(row, count, times, counted)
    end
    row = row + count
  end
end
return pack('<I8I8', now, replaced) .. table.concat(answers)
