"""Document pages set from words, fonts and drawn parts: what the source `text` renders."""
