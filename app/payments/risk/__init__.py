"""Whether a payment may be opened at all: limits, blocks, holds, each with its reason."""
