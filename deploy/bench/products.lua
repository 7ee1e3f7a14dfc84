-- Asks for products at random. The scripts beside it say of how many.
local requests = {}

function prepare(ids_file, products_max)
    for id in io.lines(ids_file) do
        if #requests >= products_max then break end
        requests[#requests + 1] = "GET /v1/products/" .. id .. " HTTP/1.1\r\nHost: bench\r\n\r\n"
    end
end

request = function()
    return requests[math.random(#requests)]
end
