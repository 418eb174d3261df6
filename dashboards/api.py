"""What the rest of Fettle may use of the dashboards: the part of the web application, and Grafana's set-up."""

from dashboards.grafana.client import Source, apply
from dashboards.grafana.login import Login, ensure_login
from dashboards.routes import PART

__all__ = ["PART", "Login", "Source", "apply", "ensure_login"]
