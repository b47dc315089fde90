"""Operation of endpoints: alarms, a dashboard, and reports of captured requests."""
