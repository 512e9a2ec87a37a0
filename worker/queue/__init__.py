"""A request's record and its moves."""
