"""`make exports`: the memory and the time that an export takes, of few objects and of very many."""
