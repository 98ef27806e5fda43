"""HTTP: one file a resource; requests to pipeline calls, results to answers."""
