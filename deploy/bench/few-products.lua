-- So few products that every one stays in the process.
dofile("deploy/bench/products.lua")
init = function(args) prepare(args[1], 100) end
