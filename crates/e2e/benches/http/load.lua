-- The script for wrk: POST /api/v1/price or /api/v1/prices, one product after another, and the report at the
-- end.
--
-- wrk -s load.lua URL -- PATH PRODUCTS ITEMS: that path, that many products, that many of them in one
-- request.

local requests = {}
local turn = 0

function init(arguments)
  local path, products, items = arguments[1], tonumber(arguments[2]), tonumber(arguments[3])
  local headers = { ["content-type"] = "application/json" }
  for first = 0, products - 1, items do
    local asked = {}
    for item = first, first + items - 1 do
      table.insert(asked, string.format('"product_id":"B-%05d"', item % products))
    end
    local member = first % 2 == 0 and "true" or "false"
    local shopper = string.format('"user_location":"NY","is_prime_member":%s', member)
    local body = "{" .. shopper .. "," .. asked[1] .. "}"
    if items > 1 then
      body = "{" .. shopper .. ',"items":[{' .. table.concat(asked, "},{") .. "}]}"
    end
    table.insert(requests, wrk.format("POST", path, headers, body))
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"failed":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.requests, summary.duration, failed, latency:percentile(50), latency:percentile(99)
  ))
end
