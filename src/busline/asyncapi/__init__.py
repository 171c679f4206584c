"""An App as an AsyncAPI document: what it reads and what it writes, from its types.

from busline.asyncapi import document
"""

from busline.asyncapi.document import document

__all__ = ["document"]
