"""Who may try now: shopper tokens, operator tokens."""
