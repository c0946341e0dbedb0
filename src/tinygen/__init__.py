"""tinygen: multi-agent systems in one small package.

This is the table of contents: every public name and the module it lives in. A module is loaded when one of its names
is first touched, so `import tinygen` costs next to nothing.
"""

__version__ = "0.1.0"

# fmt: off
# ruff: noqa: I001
TYPE_CHECKING = False
if TYPE_CHECKING:
    from .actors import (
        Agent as Agent, AgentInstantiationContext as AgentInstantiationContext, AgentMetadata as AgentMetadata,
        AgentRuntime as AgentRuntime, BaseAgent as BaseAgent, ClosureAgent as ClosureAgent,
        ClosureContext as ClosureContext, DefaultInterventionHandler as DefaultInterventionHandler,
        DropMessage as DropMessage, InterventionHandler as InterventionHandler, MessageContext as MessageContext,
        RoutedAgent as RoutedAgent, event as event, message_handler as message_handler, rpc as rpc
    )
    from .addresses import (
        AgentId as AgentId, AgentType as AgentType, DefaultSubscription as DefaultSubscription,
        DefaultTopicId as DefaultTopicId, MessageHandlerContext as MessageHandlerContext,
        Subscription as Subscription, SubscriptionInstantiationContext as SubscriptionInstantiationContext,
        TopicId as TopicId, TypePrefixSubscription as TypePrefixSubscription, TypeSubscription as TypeSubscription,
        default_subscription as default_subscription, type_subscription as type_subscription
    )
    from .agents import (
        BaseChatAgent as BaseChatAgent, UserProxyAgent as UserProxyAgent, suspend as suspend
    )
    from .assistant import (
        AssistantAgent as AssistantAgent
    )
    from .cancellation import (
        CancellationToken as CancellationToken
    )
    from .component import (
        Component as Component
    )
    from .conditions import (
        AndTerminationCondition as AndTerminationCondition, ExternalTermination as ExternalTermination,
        FunctionCallTermination as FunctionCallTermination, FunctionalTermination as FunctionalTermination,
        HandoffTermination as HandoffTermination, MaxMessageTermination as MaxMessageTermination,
        OrTerminationCondition as OrTerminationCondition, SourceMatchTermination as SourceMatchTermination,
        StopMessageTermination as StopMessageTermination, TerminationCondition as TerminationCondition,
        TextMentionTermination as TextMentionTermination, TextMessageTermination as TextMessageTermination,
        TimeoutTermination as TimeoutTermination, TokenUsageTermination as TokenUsageTermination
    )
    from .errors import (
        AgentFailed as AgentFailed, AlreadyRunning as AlreadyRunning, AuthenticationError as AuthenticationError,
        CantHandleException as CantHandleException, ConfigError as ConfigError, ConnectionFailed as ConnectionFailed,
        DecodeError as DecodeError, EncodeError as EncodeError, IncompleteResponse as IncompleteResponse,
        LimitReached as LimitReached, MessageDroppedException as MessageDroppedException, ModelError as ModelError,
        ModelTimeout as ModelTimeout, NotAccessibleError as NotAccessibleError, ProtocolError as ProtocolError,
        RateLimitError as RateLimitError, RequestError as RequestError, ResponseTooLarge as ResponseTooLarge,
        RunDiverged as RunDiverged, ServerError as ServerError, StateError as StateError, Suspended as Suspended,
        TerminatedException as TerminatedException, TinygenError as TinygenError, ToolError as ToolError,
        UndeliverableException as UndeliverableException
    )
    from .journal import (
        effect as effect
    )
    from .memory import (
        ListMemory as ListMemory, Memory as Memory, MemoryMimeType as MemoryMimeType,
        MemoryQueryResult as MemoryQueryResult, UpdateContextResult as UpdateContextResult
    )
    from .messages import (
        AgentEvent as AgentEvent, AssistantMessage as AssistantMessage, BaseAgentEvent as BaseAgentEvent,
        BaseChatMessage as BaseChatMessage, BaseMessage as BaseMessage, BaseTextChatMessage as BaseTextChatMessage,
        ChatCompletionTokenLogprob as ChatCompletionTokenLogprob, ChatMessage as ChatMessage, CodeBlock as CodeBlock,
        CodeExecutionEvent as CodeExecutionEvent, CodeGenerationEvent as CodeGenerationEvent,
        CodeResult as CodeResult, CreateResult as CreateResult, FunctionCall as FunctionCall,
        FunctionExecutionResult as FunctionExecutionResult,
        FunctionExecutionResultMessage as FunctionExecutionResultMessage, HandoffMessage as HandoffMessage,
        Image as Image, LLMMessage as LLMMessage, MemoryContent as MemoryContent,
        MemoryQueryEvent as MemoryQueryEvent, ModelClientStreamingChunkEvent as ModelClientStreamingChunkEvent,
        MultiModalMessage as MultiModalMessage, Pending as Pending, Record as Record, RequestUsage as RequestUsage,
        Response as Response, SelectSpeakerEvent as SelectSpeakerEvent, SelectorEvent as SelectorEvent,
        StopMessage as StopMessage, StructuredMessage as StructuredMessage, SystemMessage as SystemMessage,
        TaskResult as TaskResult, TextMessage as TextMessage, ThoughtEvent as ThoughtEvent,
        ToolCallExecutionEvent as ToolCallExecutionEvent, ToolCallRequestEvent as ToolCallRequestEvent,
        ToolCallSummaryMessage as ToolCallSummaryMessage, TopLogprob as TopLogprob,
        UserInputRequestedEvent as UserInputRequestedEvent, UserMessage as UserMessage
    )
    from .model_context import (
        BufferedChatCompletionContext as BufferedChatCompletionContext,
        ChatCompletionContext as ChatCompletionContext,
        HeadAndTailChatCompletionContext as HeadAndTailChatCompletionContext,
        TokenLimitedChatCompletionContext as TokenLimitedChatCompletionContext,
        UnboundedChatCompletionContext as UnboundedChatCompletionContext
    )
    from .models import (
        ChatCompletionClient as ChatCompletionClient, ModelInfo as ModelInfo, ToolSchema as ToolSchema,
        create_client as create_client
    )
    from .models.openai import (
        AzureOpenAIChatCompletionClient as AzureOpenAIChatCompletionClient,
        OpenAIChatCompletionClient as OpenAIChatCompletionClient
    )
    from .models.replay import (
        Chunks as Chunks, Delayed as Delayed, ReplayChatCompletionClient as ReplayChatCompletionClient,
        ReplayRequest as ReplayRequest
    )
    from .run import (
        RunLimits as RunLimits, fan_out as fan_out
    )
    from .runner import (
        RunHandle as RunHandle, RunStream as RunStream, TaskRunner as TaskRunner
    )
    from .runtime import (
        SingleThreadedAgentRuntime as SingleThreadedAgentRuntime
    )
    from .teams import (
        BaseGroupChat as BaseGroupChat, RoundRobinGroupChat as RoundRobinGroupChat
    )
    from .telemetry import (
        Event as Event, listen as listen
    )
    from .tools import (
        BaseStreamTool as BaseStreamTool, BaseTool as BaseTool, BaseToolWithState as BaseToolWithState,
        FunctionTool as FunctionTool, ImageResultContent as ImageResultContent,
        StaticStreamWorkbench as StaticStreamWorkbench, StaticWorkbench as StaticWorkbench,
        TextResultContent as TextResultContent, Tool as Tool, ToolOverride as ToolOverride, ToolResult as ToolResult,
        Workbench as Workbench
    )
    from .toolbox import (
        Handoff as Handoff
    )
    from .ui import (
        Console as Console, UserInputManager as UserInputManager
    )
else:
    _NAMES = {
        "actors": (
            "Agent AgentInstantiationContext AgentMetadata AgentRuntime BaseAgent ClosureAgent ClosureContext "
            "DefaultInterventionHandler DropMessage InterventionHandler MessageContext RoutedAgent event "
            "message_handler rpc"
        ),
        "addresses": (
            "AgentId AgentType DefaultSubscription DefaultTopicId MessageHandlerContext Subscription "
            "SubscriptionInstantiationContext TopicId TypePrefixSubscription TypeSubscription default_subscription "
            "type_subscription"
        ),
        "agents": "BaseChatAgent UserProxyAgent suspend",
        "assistant": "AssistantAgent",
        "cancellation": "CancellationToken",
        "component": "Component",
        "conditions": (
            "AndTerminationCondition ExternalTermination FunctionCallTermination FunctionalTermination "
            "HandoffTermination MaxMessageTermination OrTerminationCondition SourceMatchTermination "
            "StopMessageTermination TerminationCondition TextMentionTermination TextMessageTermination "
            "TimeoutTermination TokenUsageTermination"
        ),
        "errors": (
            "AgentFailed AlreadyRunning AuthenticationError CantHandleException ConfigError ConnectionFailed "
            "DecodeError EncodeError IncompleteResponse LimitReached MessageDroppedException ModelError ModelTimeout "
            "NotAccessibleError ProtocolError RateLimitError RequestError ResponseTooLarge RunDiverged ServerError "
            "StateError Suspended TerminatedException TinygenError ToolError UndeliverableException"
        ),
        "journal": "effect",
        "memory": "ListMemory Memory MemoryMimeType MemoryQueryResult UpdateContextResult",
        "messages": (
            "AgentEvent AssistantMessage BaseAgentEvent BaseChatMessage BaseMessage BaseTextChatMessage "
            "ChatCompletionTokenLogprob ChatMessage CodeBlock CodeExecutionEvent CodeGenerationEvent CodeResult "
            "CreateResult FunctionCall FunctionExecutionResult FunctionExecutionResultMessage HandoffMessage Image "
            "LLMMessage MemoryContent MemoryQueryEvent ModelClientStreamingChunkEvent MultiModalMessage Pending "
            "Record RequestUsage Response SelectSpeakerEvent SelectorEvent StopMessage StructuredMessage "
            "SystemMessage TaskResult TextMessage ThoughtEvent ToolCallExecutionEvent ToolCallRequestEvent "
            "ToolCallSummaryMessage TopLogprob UserInputRequestedEvent UserMessage"
        ),
        "model_context": (
            "BufferedChatCompletionContext ChatCompletionContext HeadAndTailChatCompletionContext "
            "TokenLimitedChatCompletionContext UnboundedChatCompletionContext"
        ),
        "models": "ChatCompletionClient ModelInfo ToolSchema create_client",
        "models.openai": "AzureOpenAIChatCompletionClient OpenAIChatCompletionClient",
        "models.replay": "Chunks Delayed ReplayChatCompletionClient ReplayRequest",
        "run": "RunLimits fan_out",
        "runner": "RunHandle RunStream TaskRunner",
        "runtime": "SingleThreadedAgentRuntime",
        "teams": "BaseGroupChat RoundRobinGroupChat",
        "telemetry": "Event listen",
        "tools": (
            "BaseStreamTool BaseTool BaseToolWithState FunctionTool ImageResultContent StaticStreamWorkbench "
            "StaticWorkbench TextResultContent Tool ToolOverride ToolResult Workbench"
        ),
        "toolbox": "Handoff",
        "ui": "Console UserInputManager",
    }
    # fmt: on
    _HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

    __all__ = ["__version__", *_HOME]

    def __getattr__(name):
        module = _HOME.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
