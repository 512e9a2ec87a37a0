-- ARGV: what is to be done, how long a turn lasts (ms). Returns 1 for whoever has this turn, 0 for the others.
return takes_turn(TURN .. ':' .. ARGV[1], now(), tonumber(ARGV[2])) and 1 or 0
