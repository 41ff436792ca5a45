"""The HTTP service: the API for runners, the site and people, the log page, and health."""
