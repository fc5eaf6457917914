"""What the engines share whose partial objects are records and segments: S3 and Swift.

A partial object is a chain of small records, each of which is created and never changed, and its bytes are segments
under random names. How a record is written so that only one holder wins, and how segments become an object, is the
engine's own: stores differ in what they promise.
"""
