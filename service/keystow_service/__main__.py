"""`python -m keystow_service` is `keystow-service`."""

from keystow_service.cli import main

main()
