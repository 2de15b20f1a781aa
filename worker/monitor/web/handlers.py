"""The pages inside Flower, and what they share with the JSON: who is signed in, and where SQL runs."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import flower.urls
import flower.views
from celery import Celery
from flower.views import BaseHandler
from pydantic import BaseModel
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from tornado.template import Loader, Template
from tornado.web import Finish, HTTPError, StaticFileHandler, authenticated, url

from db.jobs import view_jobs
from db.session import read, transact
from worker.errors import SettingsError
from worker.log_throttle import LogThrottle
from worker.logging import get_logger
from worker.monitor.web.accounts import Account
from worker.monitor.web.sign_in import Refused, SignIn
from worker.monitor.web.system_state import SystemState
from worker.settings import Settings

_HERE = Path(__file__).parent
#: Our pages load nothing from elsewhere, run no inline script, and are shown in no frame.
_CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
#: Where our entry of the navigation goes, and our part of Flower's page of workers.
_NAVIGATION, _END_OF_PAGE = '<ul class="app-nav navbar-nav">', "{% end %}\n\n{% block extra_scripts %}"
_STYLE = """  <link href="{{ reverse_url('dermq-static', 'dermq.css') }}" rel="stylesheet">\n  """

log = get_logger(__name__)

_throttle = LogThrottle()
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """What the pages need; Flower hands it on in its settings as ``dermq``."""

    settings: Settings
    database: Engine
    app: Celery
    sign_in: SignIn
    state: SystemState


class Handler(BaseHandler):  # type: ignore[misc] # Flower has no types
    """A page or a JSON answer of dermq."""

    @property
    def monitor(self) -> Monitor:
        """The parts of dermq."""
        monitor: Monitor = self.application.settings["dermq"]
        return monitor

    @property
    def account(self) -> Account:
        """Who is signed in. Ask after `authenticated`."""
        account: Account = self.current_user
        return account

    @property
    def actor(self) -> str:
        """Who is signed in, for the audit log."""
        return f"{self.account.name} (Flower)"

    def require_operator(self) -> None:
        """Refuse a viewer.

        Raises:
            HTTPError: 403.
        """
        if not self.account.is_operator:
            raise HTTPError(403, "Your account may look, but not act. Ask for one with the role operator.")

    def set_default_headers(self) -> None:
        """Headers of every answer."""
        super().set_default_headers()
        self.set_header("Content-Security-Policy", _CONTENT_POLICY)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "same-origin")

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Run something that waits, such as SQL, without holding up the other requests."""
        return await asyncio.get_running_loop().run_in_executor(self.application.executor, work)

    async def read(self, query: Callable[[Connection], Result], attempts: int = 1) -> Result:
        """Read from the database. A page asks again soon, so one attempt is enough for it.

        Raises:
            HTTPError: 503, it does not answer.
        """
        try:
            return await self.in_thread(lambda: read(self.monitor.database, query, attempts=attempts))
        except SQLAlchemyError as error:
            raise HTTPError(503, f"The database cannot be read ({type(error).__name__}).") from None

    async def change(self, work: Callable[[Connection], Result]) -> Result:
        """Write to the database.

        Raises:
            HTTPError: 503, it does not answer, or takes no writes.
        """
        try:
            return await self.in_thread(lambda: transact(self.monitor.database, work))
        except SQLAlchemyError as error:
            raise HTTPError(503, f"The database cannot be written ({type(error).__name__}).") from None


class Landing(Handler):
    """The address without a path."""

    @authenticated
    def get(self) -> None:
        """Lead to the list of jobs."""
        self.redirect(self.reverse_url("jobs"))


class JobsPage(Handler):
    """The list of jobs."""

    @authenticated
    async def get(self) -> None:
        """The page. Its content comes by JSON."""
        self.render("jobs.html", account=self.account)


class JobPage(Handler):
    """One job."""

    @authenticated
    async def get(self, number: str) -> None:
        """The page. Its content comes by JSON."""
        job_id = int(number)
        if not await self.read(lambda connection: view_jobs(connection, job_id=job_id)):
            raise HTTPError(404, f"There is no job {job_id}.")
        self.render("job.html", account=self.account, job_id=job_id)


class JsonHandler(Handler):
    """A JSON answer."""

    def send(self, model: BaseModel) -> None:
        """Answer with a model."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.write(model.model_dump_json())

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer errors as JSON, too."""
        error = kwargs.get("exc_info", (None, None))[1]
        text = (error.get_message() if isinstance(error, HTTPError) else None) or self._reason
        if status_code == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="dermq"')
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps({"error": text}))


class _Templates(Loader):
    """Flower's templates with our entry in the navigation, and ours beside them."""

    def _create_template(self, name: str) -> Any:
        ours = _HERE / "templates" / name
        if ours.is_file():
            return self._compiled(ours.read_text(encoding="utf-8"), name)
        text = Path(self.root, name).read_text(encoding="utf-8")
        if name == "navbar.html":
            text = _with(text, _NAVIGATION, after=(_HERE / "templates" / "navigation.html").read_text(encoding="utf-8"))
        elif name == "workers.html":
            text = _with(text, _END_OF_PAGE, before='{% include "processes.html" %}\n')
        elif name == "base.html":
            text = _with(text, "</head>", before=_STYLE)
        return self._compiled(text, name)

    def _compiled(self, text: str, name: str) -> Any:
        return Template(text, name=name, loader=self)


def _with(text: str, place: str, *, before: str = "", after: str = "") -> str:
    """A template of Flower with something put in.

    Raises:
        RuntimeError: this version of Flower has no such place.
    """
    if place not in text:
        raise RuntimeError("This version of Flower has other templates than dermq knows. Install flower 2.2.")
    return text.replace(place, f"{before}{place}{after}", 1)


def _current_user(handler: Any) -> Any:
    """Who asks, for every handler of Flower and ours. None leads to OAuth's page.

    Raises:
        HTTPError: 401 without a right password.
        HTTPError: 503, the accounts cannot be read.
        Finish: answered with 429, after too many wrong ones.
    """
    monitor: Monitor = handler.application.settings["dermq"]
    if handler.application.options.auth and (email := handler.get_secure_cookie("user")):
        from flower.utils.authentication import authenticate

        address = email.decode() if isinstance(email, bytes) else str(email)
        if authenticate(handler.application.options.auth, address):
            return monitor.sign_in.by_email(address)
    authorization = handler.request.headers.get("Authorization", "")
    if not authorization and handler.application.options.auth:
        return None
    try:
        return monitor.sign_in.by_password(authorization, str(handler.request.remote_ip))
    except SettingsError as error:
        if _throttle.allow():
            log.error("nobody can sign in", reason=str(error))
        raise HTTPError(503, "The accounts of dermq cannot be read. Its log says why.") from None
    except Refused as refused:
        if refused.wait is None:
            raise HTTPError(401, "Sign in with a name and a password.") from None
        # An HTTPError would clear the header.
        handler.set_status(429)
        handler.set_header("Retry-After", str(refused.wait))
        handler.finish({"error": f"Too many failed sign-ins. Try again in {refused.wait} seconds."})
        raise Finish from None


def install(monitor: Monitor) -> None:
    """Put dermq's pages into Flower. Call it before Flower's application is made.

    Args:
        monitor: the parts of dermq.
    """
    from worker.monitor.web.api import ROUTES, NotFound
    from worker.monitor.web.metrics import Metrics

    flower.views.BaseHandler.get_current_user = _current_user
    ours = [
        # With a prefix, also without the slash at its end.
        url(r"/?", Landing),
        url(r"/jobs", JobsPage, name="jobs"),
        url(r"/job/([1-9][0-9]{0,17})", JobPage, name="job"),
        url(r"/metrics", Metrics),
        url(r"/dermq-static/(.*)", StaticFileHandler, {"path": str(_HERE / "static")}, name="dermq-static"),
        *(url(pattern, handler) for pattern, handler in ROUTES),
        url(r"/api/dermq/(.*)", NotFound, name="dermq-api"),
    ]
    # The first that fits answers, so these stand in for Flower's own landing page and metrics.
    flower.urls.handlers[:0] = ours
    flower.urls.settings["template_loader"] = _Templates(flower.urls.settings["template_path"])
