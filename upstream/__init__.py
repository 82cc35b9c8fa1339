"""What every call to somebody else's service needs: deadline, retries, measuring, session. Imports nothing of ours."""
