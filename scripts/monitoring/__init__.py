"""What an endpoint does in service: alarms, a dashboard, and reports of captured requests."""
