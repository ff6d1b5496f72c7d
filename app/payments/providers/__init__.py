"""One module per payment provider; all of them speak through `payments.provider`."""
