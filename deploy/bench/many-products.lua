-- So many products that a small cache misses.
dofile("deploy/bench/products.lua")
init = function(args) prepare(args[1], 1e9) end
