"""Whether a served model still behaves inside as it did when it was exported."""
