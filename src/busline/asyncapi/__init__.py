"""An App as an AsyncAPI document: what it reads and what it writes, from its types; and that as a
page.

from busline.asyncapi import document, page
"""

from busline.asyncapi.document import document
from busline.asyncapi.page import page, policy

__all__ = ["document", "page", "policy"]
