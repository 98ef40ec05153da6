"""The operations of the server.  A resolver is a plain function and one transaction; it does not depend on GraphQL.

It takes the database and arguments, returns models, and raises the errors of `resolvers.errors`.
"""
