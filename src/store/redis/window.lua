-- The sliding window over a log of (instant, count), for a batch of requests.
--
-- The twin of src/limit/window.rs, where the rules are told: a change here is a change there.
--
-- KEYS     the key of each row
-- ARGV[1]  now in microseconds; empty: the server's time
-- ARGV[2]  the resolution M
-- ARGV[3]  the quotas, packed: limit, window in microseconds, and the window in milliseconds, rounded
--          up, as text behind its length
-- ARGV[4]  the rows, packed. A request has one for each of its limits; those of requests that are made
--          of the same numbers, and follow one another, are told once: how many such requests, how many
--          rows each has (0: one row, something to settle), how often each is made; then for each row
--          which quota, cost, what of it (a take: 1 is on trial; a settle: 0 is given back, 1 is kept,
--          2 is what is left of a lease, 3 is all that there is), and a number (a take: how long a lease
--          is asked for, in microseconds, of which the request is made as often as there may be; a
--          settle: the mark)
-- returns  packed: now, how many foreign values were replaced; then for each row: twice how often the
--          request was admitted, and 1 if there is room for one more; remaining, microseconds until
--          the first leaves; and where there is no more room, microseconds until there is (0: never)
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
-- Nearly all of a call's time is Lua's, and of that nothing is dearer than to make a function or a
-- table, or a number of a text: they are made anew in each call. So what most requests need is one
-- function without tables, `visit`, and what few need is made where it is needed, by `rarely`. That
-- unfolds the log into a list, writes it anew, and visits again: once. What asks for that again is
-- none of ours, whatever it looks like, and what is not ours is replaced.
--
-- Numbers are doubles, exact to 2^53. Nothing here turns one into text by `..`: Lua keeps 14 digits
-- then. Redis keeps 17 of those that a command is given.

local QUOTA, RUN, ROW = '<I4I8Bc0', '<I4I4I4', '<I4I4BI8'
-- How a key is visited: as it is, after it was written anew, or as if there were nothing.
local AS_IT_IS, ANEW, BLANK = 0, 1, 2

local KEYS, spread, pack, unpack = KEYS, unpack, struct.pack, struct.unpack
local get, call = redis.pcall, redis.call
local now, resolution = ARGV[1], ARGV[2] + 0
if now == '' then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
else
  now = now + 0
end

-- How logs are packed whose entries have fields of these widths; nil where none have.
local function shape_of(at, count, held)
  local of_at = at == 4 and 'I4' or at == 5 and 'I5' or at == 6 and 'I6'
  local of_count = count == 1 and 'I1' or count == 2 and 'I2' or count == 4 and 'I4'
  if not of_at or not of_count or held > 1 then return nil end
  local of_held = held == 1 and of_count or ''
  return {
    at = at,
    count = count,
    held = held,
    tag = 169 + 256 * (at * 32 + count * 4 + held),
    log = '<I2I7I6I6I6I6' .. of_at .. of_count .. of_held,
    entry = '<' .. of_at .. of_count .. of_held,
    size = at + count + held * count,
    bytes = 33 + at + count + held * count,
  }
end

local rare
-- What few requests need.
local function rarely()
  if rare then return rare end
  local IN_FLIGHT, SECOND = 60000000, 1000000
  local resolution = ARGV[2] + 0
  local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
  rare = {}

  local function count_width(count) return count < 2 ^ 8 and 1 or count < 2 ^ 16 and 2 or 4 end

  -- The shape of the log at a key, unless what is there is foreign.
  function rare.recognize(raw)
    if type(raw) ~= 'string' then
      if not string.find(raw.err, 'WRONGTYPE', 1, true) then error(raw.err) end
      return nil
    end
    local tag, widths = string.byte(raw, 1, 2)
    if not widths or tag ~= 169 and tag ~= 170 then return nil end
    local shape = shape_of(floor(widths / 32), floor(widths / 4) % 8, widths % 4)
    return shape and #raw >= shape.bytes and (#raw - shape.bytes) % shape.size == 0 and shape
  end

  -- This shape, or a wider one where another is.
  function rare.widened(shape, other)
    local at, count = max(shape.at, other.at), max(shape.count, other.count)
    local wide = shape_of(at, count, max(shape.held, other.held))
    return wide.tag == shape.tag and shape or wide
  end

  -- A log whose entries are a list, oldest first.
  local function unfold(raw, shape)
    local tag, base, opened, _, longest, _, newest, count, held = struct.unpack(shape.log, raw)
    local entries, first = {}, shape.bytes + 1
    while first <= #raw do
      local at, count, held = struct.unpack(shape.entry, raw, first)
      entries[#entries + 1] = { base + at, count, shape.held == 1 and held or 0 }
      first = first + shape.size
    end
    entries[#entries + 1] = { base + newest, count, shape.held == 1 and held or 0 }
    opened = opened > 0 and base + opened or 0
    return { ahead = tag - shape.tag, longest = longest, opened = opened, entries = entries }
  end

  -- Writes a log, with the latest base that serves it.
  local function write(key, log, shape)
    local entries, opened = log.entries, log.opened
    local newest = table.remove(entries)
    if not newest then return redis.call('DEL', key) end
    local base = min(entries[1] and entries[1][1] or newest[1], now)
    if opened > 0 then base = min(base, opened) end
    base = base - 1
    local sum, older = newest[2], {}
    for i, entry in ipairs(entries) do
      sum = sum + entry[2]
      older[i] = struct.pack(shape.entry, entry[1] - base, entry[2], entry[3])
    end
    opened = opened > 0 and opened - base or 0
    local lives = max(newest[1] + log.longest - now, 1)
    local head = struct.pack(shape.log, shape.tag + log.ahead, base, opened, now + lives - base,
      log.longest, sum, newest[1] - base, newest[2], newest[3])
    redis.call('SET', key, head .. table.concat(older), 'PX', ceil(lives / 1000))
  end

  -- Merges what has left this window to what the longest one needs, by spans that lie fixed: what was
  -- merged before gets no later by being merged again. Says the highest count.
  local function thin(log, window)
    local span, thinner, last, highest = ceil(log.longest / resolution), {}, nil, 0
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

  -- Writes a log in a wider shape; thinned, where there is a window.
  function rare.renew(key, raw, shape, wide, window)
    local log = unfold(raw, shape)
    if window then
      local count = max(wide.count, count_width(thin(log, window)))
      wide = shape_of(wide.at, count, wide.held)
    end
    write(key, log, wide)
  end

  -- What is later than an instant becomes that; in a wider shape, too.
  function rare.pull_back(key, raw, shape, wide, latest)
    local log = unfold(raw, shape)
    local entries, merged = log.entries, { latest, 0, 0 }
    while #entries > 0 and entries[#entries][1] >= latest do
      local last = table.remove(entries)
      merged[2], merged[3] = merged[2] + last[2], merged[3] + last[3]
    end
    entries[#entries + 1] = merged
    log.opened = min(log.opened, latest)
    write(key, log, shape_of(wide.at, max(wide.count, count_width(merged[2])), wide.held))
  end

  -- Microseconds until so much has become free. `first` is where the oldest live entry begins.
  function rare.wait(window, needed, raw, shape, first)
    local _, base, _, _, _, _, newest, newest_count, newest_held = struct.unpack(shape.log, raw)
    local freed, in_flight, leaves, on_trial = 0, 0, nil, shape.held == 1
    while first <= #raw and (not leaves or on_trial) do
      local at, count, held = struct.unpack(shape.entry, raw, first)
      first = first + shape.size
      freed = freed + count
      if freed >= needed then leaves = leaves or at end
      if on_trial and now - base - at < IN_FLIGHT then in_flight = in_flight + held end
    end
    if on_trial and now - base - newest < IN_FLIGHT then in_flight = in_flight + newest_held end
    local room = max(base + min(leaves or newest, newest) + window - now, 1)
    return in_flight >= needed and min(room, SECOND) or room
  end

  -- Nothing of ours lives for ever.
  function rare.bury(key, micros)
    if redis.call('PTTL', key) == -1 then redis.call('PEXPIRE', key, ceil(max(micros, 1) / 1000)) end
  end

  function rare.settle(key, window, span, cost, what, mark)
    if what == 3 then return redis.call('DEL', key) end
    if cost == 0 or mark + window <= now then return end
    local raw = redis.pcall('GET', key)
    local shape = raw and rare.recognize(raw)
    if not shape then return end
    local log = unfold(raw, shape)
    -- A lease may have joined a later one, or others it.
    if what == 2 then span = min(ceil(log.longest / 64), SECOND) * 2 end
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

  return rare
end

-- Writes a log whose key lives so long; or its head alone, where there is no value, and the key may live as
-- long as it does.
local function put(key, head, value, ttl)
  if value then
    call('SET', key, value, 'PX', ttl)
  else
    -- To copy the older entries costs more than all else.
    call('SETRANGE', key, '0', head)
    if ttl then call('PEXPIRE', key, ttl) end
  end
end

-- Of a request under several limits, what is to be put once all have said that they would count it: the
-- arguments of `put`, one after the other, and how many there are.
local undecided, arguments
local replaced = 0

-- Decides a request of this cost, made so many times, and counts it where there is room, at most
-- `most` times, in a log of at least this shape; for a lease that lasts so long, where that is not 0.
--
-- Returns how often it was counted, and the answer.
local function visit(key, quota, wanted, cost, times, most, lease, how)
  local limit, window = quota[1], quota[2]
  -- Instants are told from the base here.
  local shape, base, opened, expires, longest, sum = wanted, now - 1, 0, 0, window, 0
  local newest, count, held, first, older, oldest, ahead = 0, 0, 0, 1, 0, 0, false
  local raw = how ~= BLANK and get('GET', key)
  if raw then
    local tag, leaving
    -- Most logs have the shape of the quota.
    if #raw >= shape.bytes then
      tag, base, opened, expires, longest, sum, newest, count, held = unpack(shape.log, raw)
    end
    if tag ~= shape.tag and tag ~= shape.tag + 1 then
      shape = rarely().recognize(raw)
      if not shape then return visit(key, quota, wanted, cost, times, most, lease, BLANK) end
      tag, base, opened, expires, longest, sum, newest, count, held = unpack(shape.log, raw)
    end
    if shape.held == 0 then held = 0 end
    local latest, size = now - base, #raw
    first = shape.bytes + 1
    older = (size + 1 - first) / shape.size
    if tag ~= shape.tag then
      local lasts = longest / 64
      ahead, latest = newest > latest, latest + (lasts < 1000000 and lasts + -lasts % 1 or 1000000)
    end
    -- No instant is later than 2^52, no window longer than 2^45; and no log longer than this: twice as
    -- many entries of most bytes as two windows make, and room for those of a server that has a higher
    -- resolution.
    if base > 2 ^ 52 or opened > newest or longest == 0 or longest > 2 ^ 45 or held > count
      or expires > newest + 2 ^ 46 or older % 1 > 0 or size > 28672 and size > 112 * ARGV[2]
    then
      return visit(key, quota, wanted, cost, times, most, lease, BLANK)
    end
    if newest > latest then
      if how == ANEW then return visit(key, quota, wanted, cost, times, most, lease, BLANK) end
      rarely().pull_back(key, raw, shape, rare.widened(shape, wanted), base + latest)
      return visit(key, quota, wanted, cost, times, most, lease, ANEW)
    end
    local horizon = now - base - longest
    if newest <= horizon then
      sum = 0
    elseif older == 0 then
      oldest = newest
      if sum ~= count then return visit(key, quota, wanted, cost, times, most, lease, BLANK) end
    else
      repeat
        oldest, leaving = unpack(shape.entry, raw, first)
        if oldest > horizon then break end
        sum, older, first = sum - leaving, older - 1, first + shape.size
        if older == 0 then oldest = newest end
      until older == 0
      if oldest > newest or sum < count or older == 0 and sum > count then
        return visit(key, quota, wanted, cost, times, most, lease, BLANK)
      end
    end
  end

  -- What is live by this window: all that is kept, unless a longer one keeps more.
  local used, live, oldest_live, older_live = sum, first, oldest, older
  if window < longest and sum > 0 then
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
    if used < 0 then used = 0 end
  end

  local admitted = times
  if used + cost * times > limit and cost > 0 then
    admitted = used < limit and (limit - used - (limit - used) % cost) / cost or 0
  end
  if admitted > most then admitted = most end
  if lease > 0 and admitted > 0 then
    -- It takes at most a sixteenth of what is left. Near the limit it takes no more than what is asked
    -- for now, and no lease.
    local share = (limit - used) / cost / 16
    if admitted > share then admitted = share >= 2 and share - share % 1 or 1 end
    if admitted == 1 then lease = 0 end
  end
  local head, value
  if admitted > 0 and cost > 0 then
    local more, here, ttl, entry = cost * admitted, now - base + lease, nil, nil
    -- What is at the same instant always joins, as a mark is found by it.
    local joins = false
    if sum == 0 then
      base, here, expires, longest = now - 1, 1 + lease, 0, window
      ahead, shape = false, wanted
    else
      if ahead and newest > here then here = newest end
      -- Only quotas of several windows make more entries than this: twice what one of them has, and half
      -- as much again as is left then.
      local crowded = window < longest and older > 6 * ARGV[2] + 6 and how == AS_IT_IS
      if shape ~= wanted or crowded or here >= 2 ^ 32 then
        local wide = rarely().widened(shape, wanted)
        if wide ~= shape or crowded or here >= 2 ^ (8 * shape.at) then
          if how == AS_IT_IS then rare.renew(key, raw, shape, wide, crowded and window) end
          return visit(key, quota, wanted, cost, times, most, lease, how + 1)
        end
      end
      joins = newest == here or opened > 0 and here - opened < quota[4]
    end
    if joins then
      count = count + more
      if wanted.held == 1 then held = held + more end
      if older_live == 0 or used == 0 then oldest_live = here end
    else
      if sum > 0 then entry = pack(shape.entry, newest, count, held) end
      opened, count, held = here, more, wanted.held == 1 and more or 0
      if used == 0 then oldest_live = here end
    end
    newest, sum, used = here, sum + more, used + more
    if longest < window then longest = window end
    ahead = here > now - base
    -- The key lives until its newest entry leaves the window: to the end of that millisecond, so that what
    -- comes in the same one leaves it as it is.
    local leaves = here + longest
    local in_place = joins and first == shape.bytes + 1
    if not in_place or expires < leaves or expires >= leaves + 1000 then
      expires = leaves + 999 - (base + leaves) % 1000
      ttl = quota[3]
      if longest > window or ahead then
        ttl = (leaves - (now - base)) / 1000
        ttl = ttl + -ttl % 1
      end
    end
    head = pack(shape.log, ahead and shape.tag + 1 or shape.tag, base, opened, expires, longest, sum,
      newest, count, held)
    if not in_place then
      if joins then
        value = head .. string.sub(raw, first)
      elseif not entry then
        value = head
      elseif older > 0 then
        value = head .. string.sub(raw, first) .. entry
      else
        value = head .. entry
      end
    end
    if how == BLANK then replaced = replaced + 1 end
    if undecided then
      local at = arguments
      undecided[at + 1], undecided[at + 2], undecided[at + 3], undecided[at + 4] = key, head, value, ttl
      arguments = at + 4
    else
      put(key, head, value, ttl)
    end
  elseif raw and times > 0 and not undecided then
    rarely().bury(key, newest + longest - (now - base))
  end

  local remaining, reset = limit - used, 0
  if remaining < 0 then remaining = 0 end
  if used > 0 then
    reset = base + (oldest_live < newest and oldest_live or newest) + window - now
    if reset < 0 then reset = 0 end
  end
  if cost <= remaining then return admitted, pack('<I4I4I8', 2 * admitted + 1, remaining, reset) end
  local retry = 0
  if admitted < times and cost <= limit and not undecided then
    if head then
      raw = value or head .. string.sub(raw, first)
      -- Where those begin now that live: at the end if the newest alone does.
      live = oldest_live == newest and #raw + 1 or shape.bytes + 1 + live - first
    end
    retry = rarely().wait(window, used + cost - limit, raw, shape, live)
  end
  return admitted, pack('<I4I4I8I8', 2 * admitted, remaining, reset, retry)
end

-- Of each: limit, window, its milliseconds as text, how long an entry is joined, the shape of its logs.
local quotas, place, packed, position = { 0 }, 0, ARGV[3], 1
while position <= #packed do
  local limit, window, ttl
  limit, window, ttl, position = unpack(QUOTA, packed, position)
  local at = window < 2 ^ 30 and 4 or window < 2 ^ 38 and 5 or 6
  local span = window / resolution
  place = place + 1
  -- An instant is at most two windows later than the base when it is encoded; room for twice that,
  -- so that encoding anew is rare.
  quotas[place] = {
    limit,
    window,
    ttl,
    limit > resolution and span + -span % 1 or 1,
    shape_of(at, limit < 2 ^ 8 and 1 or limit < 2 ^ 16 and 2 or 4, 0),
  }
end

-- The first is the head of the reply.
local answers, row = { '', '', '', '' }, 0
packed, position = ARGV[4], 1
while position <= #packed do
  local requests, count, times = unpack(RUN, packed, position)
  local rows, place, cost, flag, number, _ = position + 12, nil, nil, nil, nil, nil
  place, cost, flag, number, position = unpack(ROW, packed, rows)
  local quota = quotas[place]
  local shape = quota[5]
  if count > 0 and flag == 1 then shape = shape_of(shape.at, shape.count, 1) end
  for _ = 1, requests do
    if count == 1 then
      row = row + 1
      _, answers[row + 1] = visit(KEYS[row], quota, shape, cost, times, times, number, AS_IT_IS)
    elseif count == 0 then
      row = row + 1
      local key = KEYS[row]
      -- A clock that was set back is seen to first.
      visit(key, quota, shape, 0, 0, 0, 0, AS_IT_IS)
      rarely().settle(key, quota[2], quota[4], cost, flag, number)
      _, answers[row + 1] = visit(key, quota, shape, 0, 0, 0, 0, AS_IT_IS)
    else
      -- It is counted as often as all have room for it, which is known once all were asked: at the second
      -- time if they disagree.
      local before, counted, most = replaced, times, nil
      local writes = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
      undecided = writes
      repeat
        most, position, arguments, replaced = counted, rows, 0, before
        for i = 1, count do
          place, cost, flag, _, position = unpack(ROW, packed, position)
          quota = quotas[place]
          shape = quota[5]
          if flag == 1 then shape = shape_of(shape.at, shape.count, 1) end
          local admitted
          admitted, answers[row + i + 1] =
            visit(KEYS[row + i], quota, shape, cost, times, most, 0, AS_IT_IS)
          if admitted < counted then counted = admitted end
        end
        undecided = nil
      until counted == most or most < times
      for i = 1, arguments, 4 do put(spread(writes, i, i + 3)) end
      row = row + count
    end
  end
end
answers[1] = pack('<I8I8', now, replaced)
return table.concat(answers)
