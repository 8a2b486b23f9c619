-- The sliding window of two counters, as most write it: one for each fixed window, the earlier
-- weighted by how much of it still counts. Admits up to twice the limit around a boundary.
--
-- KEYS[1]  the client
-- ARGV     window in milliseconds, limit
-- returns  admitted or not, remaining, milliseconds until the window ends

local window, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local index = math.floor(now / window)
local current = KEYS[1] .. ':' .. index
local count = tonumber(redis.call('GET', current)) or 0
local earlier = tonumber(redis.call('GET', KEYS[1] .. ':' .. (index - 1))) or 0
local used = count + math.ceil(earlier * (1 - now % window / window))
local reset = window - now % window
if used >= limit then return { 0, 0, reset } end
if redis.call('INCR', current) == 1 then redis.call('PEXPIRE', current, window * 2) end
return { 1, limit - used - 1, reset }
