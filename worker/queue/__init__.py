"""The queue: a request's record, and every move of it that Redis and RQ hear of."""
