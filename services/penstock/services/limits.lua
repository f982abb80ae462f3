-- Take one permit of every limit named, or of none (GCRA; ITU-T I.371, "virtual scheduling").
--
-- KEYS[1]  hash of the namespace: `id` of this data set, `lost` (when it was found to have replaced another one);
--          the names of all other keys begin with it, so that they share its hash tag:
--          ..:tat:L     when limit L would be idle again, microseconds ("theoretical arrival time")
--          ..:queue:L   who waits for L, by arrival          ..:arrival:L  the arrival of whoever has waited for L lately
--          ..:until:L   when a waiter that does not come back is forgotten        ..:of:H  the limits that H waits for
-- ARGV     1 holder  2 now in microseconds ("": this server's clock)  3 the `id` that the caller has seen ("": none)
--          4 an id for a new data set  5 grace in microseconds  6.. for each limit: name, interval, tolerance, period
-- Returns  {1 or 0, wait in microseconds, index of the limit that makes it wait (from 1), id}
local base, holder, seen, grace = KEYS[1], ARGV[1], ARGV[3], tonumber(ARGV[5])
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local function integer(number) return string.format('%.0f', number) end

-- A caller that knows another id tells that this server has lost what it had granted: nothing for one period.
local id = redis.call('HGET', base, 'id')
if not id then
  id = ARGV[4]
  redis.call('HSET', base, 'id', id)
end
if seen ~= '' and seen ~= id then redis.call('HSETNX', base, 'lost', integer(now)) end
local lost = tonumber(redis.call('HGET', base, 'lost') or nil)

local limits, longest, blocking = {}, 0, 0
for at = 6, #ARGV, 4 do
  local name, interval, tolerance, period = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local queue, until_, arrival = base .. ':queue:' .. name, base .. ':until:' .. name, base .. ':arrival:' .. name
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', until_, '-inf', '(' .. integer(now))) do
    redis.call('ZREM', queue, gone)
    redis.call('ZREM', until_, gone)
    redis.call('HDEL', arrival, gone)
  end
  -- A waiter that was let out of this queue for the sake of the others comes back to its old place.
  local came = tonumber(redis.call('HGET', arrival, holder) or nil)
  local ahead = came and redis.call('ZCOUNT', queue, '-inf', '(' .. integer(came)) or redis.call('ZCARD', queue)
  local tat = math.max(tonumber(redis.call('GET', base .. ':tat:' .. name) or '0'), now)
  if lost then tat = math.max(tat, lost + period + tolerance) end
  local wait = math.max(0, tat + ahead * interval - tolerance - now)  -- those ahead take theirs first
  if wait > longest then longest, blocking = wait, #limits + 1 end
  limits[#limits + 1] = {
    name = name, interval = interval, tolerance = tolerance, tat = tat, wait = wait,
    queue = queue, until_ = until_, arrival = arrival, came = came,
  }
end

local function last_at_least(key, microseconds)
  local ms = math.ceil(microseconds / 1000) + 1000
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, integer(ms)) end
end

local of = base .. ':of:' .. holder
for _, limit in ipairs(limits) do
  if longest == 0 then
    local tat = limit.tat + limit.interval
    redis.call('SET', base .. ':tat:' .. limit.name, integer(tat), 'PX', integer(math.ceil((tat - now) / 1000) + 1000))
    redis.call('ZREM', limit.queue, holder)
    redis.call('ZREM', limit.until_, holder)
    redis.call('HDEL', limit.arrival, holder)
  else
    local came = limit.came
    if not came then
      -- Behind everybody, also behind those who came within this microsecond.
      local last = redis.call('ZREVRANGE', limit.queue, 0, 0, 'WITHSCORES')[2]
      came = math.max(now, last and tonumber(last) + 1 or 0)
    end
    -- Where it need not wait it stands in nobody's way, though it cannot go yet because of another limit.
    if limit.wait > 0 then redis.call('ZADD', limit.queue, integer(came), holder) else redis.call('ZREM', limit.queue, holder) end
    redis.call('HSET', limit.arrival, holder, integer(came))
    redis.call('ZADD', limit.until_, integer(now + longest + grace), holder)
    redis.call('SADD', of, limit.name)
    for _, key in ipairs({ limit.queue, limit.until_, limit.arrival, of }) do last_at_least(key, longest + grace) end
  end
end
if longest == 0 then
  redis.call('DEL', of)
  return { 1, 0, 0, id }
end
return { 0, longest, blocking, id }
