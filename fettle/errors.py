"""The one base error. Concrete errors live beside the function that raises them."""

import inspect


class FettleError(Exception):
    """Fettle cannot do what was asked.

    A subclass takes its message from the first line of its docstring, formatted with the keyword data it carries:

    >>> class PortTaken(FettleError):
    ...     '''Port {port} is in use; choose another with --port.'''
    >>> str(PortTaken(port=1883))
    'Port 1883 is in use; choose another with --port.'
    """

    def __init__(self, **data: object) -> None:
        self.data = data
        template = (inspect.getdoc(type(self)) or type(self).__name__).partition("\n")[0]
        super().__init__(template.format(**data))
