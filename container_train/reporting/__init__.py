"""The HTML reports of a job, and what they are made of."""
