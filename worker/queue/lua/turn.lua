-- Returns 1 for whoever has this turn, 0 for the others.
return takes_turn(TURN .. ':' .. task, now(), turn_ms) and 1 or 0
