"""Files in S3: single objects, and prefixes made equal to a set of files."""
