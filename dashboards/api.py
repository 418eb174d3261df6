"""What the rest of Fettle may use of the dashboards: the part of the web application, and Grafana's files."""

from dashboards.routes import PART

__all__ = ["PART"]
