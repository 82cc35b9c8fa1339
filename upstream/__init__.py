"""What every call to another service needs: deadline, retries, measuring, session. Imports no other room."""
