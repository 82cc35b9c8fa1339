"""Tests of the mapping stores."""
