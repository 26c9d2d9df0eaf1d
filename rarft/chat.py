"""Client of an OpenAI-compatible endpoint for chat completions."""

from dataclasses import dataclass
from typing import Any

from rarft.environment import read_variable
from rarft.errors import InputError

API_KEY_ENV = "OPENAI_API_KEY"


@dataclass(frozen=True, slots=True)
class Reply:
    """Reply of the endpoint.

    Attributes:
        text: Content of the first choice; None if there is none.
        prompt_tokens, completion_tokens: As counted by the endpoint; None if it does not report them.
    """

    text: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


class ChatClient:
    """A client that may be used from several threads.

    Attributes:
        openai: The openai package, whose `OpenAIError` `create_completion` raises.
    """

    def __init__(self, name: str, extra: str, url: str, model: str, timeout: float, max_retries: int) -> None:
        """
        Args:
            name: Name of the client for error messages, such as `judge`.
            extra: Extra of this package that installs openai.
            url: URL of the endpoint, such as http://localhost:8000/v1; OPENAI_API_KEY holds its key.
            model: Model that the endpoint serves.
            timeout: Seconds per request.
            max_retries: Retries per request, with exponential backoff.

        Raises:
            InputError: The openai package is not installed.
        """
        try:
            import openai
        except ImportError as error:
            raise InputError(f"{name}: openai is not installed; run `pip install rarft[{extra}]`") from error
        self.openai: Any = openai
        self._client = openai.OpenAI(
            base_url=url, api_key=read_variable(API_KEY_ENV) or "none", timeout=timeout, max_retries=max_retries
        )
        self._name, self._url, self._model = name, url, model

    def check(self) -> None:
        """Check, at no cost, that the endpoint responds and accepts the key; raise an InputError if it does not."""
        try:
            self._client.models.list()
        except self.openai.NotFoundError:
            pass  # some endpoints do not list their models
        except self.openai.OpenAIError as error:
            self.raise_if_permanent(error)

    def raise_if_permanent(self, error: Exception) -> None:
        """Raise an InputError if every request would fail like this one; ignore other errors."""
        openai, problem = self.openai, ""
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            problem = f"rejected the API key; set {API_KEY_ENV}"
        elif isinstance(error, openai.NotFoundError):
            problem = f"does not serve {self._model} ({error}); check the name"
        elif isinstance(error, openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError):
            problem = f"cannot be reached ({error}); check the URL"
        if problem:
            raise InputError(f"{self._name} {self._url}: {problem}") from error

    def create_completion(self, system: str, question: str, **options: Any) -> Reply:
        """Return the reply to one question.

        Args:
            system: System prompt.
            question: The user's turn.
            options: Other fields of the request, such as `max_tokens`.

        Raises:
            OpenAIError: There is no reply, also after the retries.
            ValueError: The reply is not JSON.
        """
        messages: list[Any] = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        reply: Any = self._client.chat.completions.create(
            model=self._model, temperature=0, messages=messages, **options
        )
        try:
            text = reply.choices[0].message.content
        except (AttributeError, TypeError, IndexError):
            text = None
        usage = getattr(reply, "usage", None)
        return Reply(
            text if isinstance(text, str) else None,
            getattr(usage, "prompt_tokens", None),
            getattr(usage, "completion_tokens", None),
        )
