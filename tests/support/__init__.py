"""What tests of several directories share: harnesses, servers, and fixtures."""
