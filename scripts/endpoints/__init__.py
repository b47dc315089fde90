"""Endpoints: made, updated, asked, in the cloud and in local mode."""
