"""Stand-ins for the servers of Google that Google's own clients and a group's machines speak to.

All are on loopback. They share the access tokens that they issue and check (`Identities`), so a
token from one is good for another, as at Google.
"""
