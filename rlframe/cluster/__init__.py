"""Plain classes become Ray actors here, and only here."""
