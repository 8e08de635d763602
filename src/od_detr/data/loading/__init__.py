"""Loading batches: their order, how samples become one, and the processes that prepare them."""
