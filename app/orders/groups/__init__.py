"""Group-buy: how groups form, fail and are merged; their seats are sold by placement."""
