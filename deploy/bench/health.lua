-- One constant answer.
request = function()
    return "GET /health HTTP/1.1\r\nHost: bench\r\n\r\n"
end
