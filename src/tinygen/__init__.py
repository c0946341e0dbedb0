"""tinygen: multi-agent systems in one small package.

This is the table of contents: every public name and the module it lives in. A module is loaded when one of its names
is first touched, so `import tinygen` costs next to nothing.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .actors import (
        Agent as Agent,
    )
    from .actors import (
        AgentInstantiationContext as AgentInstantiationContext,
    )
    from .actors import (
        AgentMetadata as AgentMetadata,
    )
    from .actors import (
        AgentRuntime as AgentRuntime,
    )
    from .actors import (
        BaseAgent as BaseAgent,
    )
    from .actors import (
        ClosureAgent as ClosureAgent,
    )
    from .actors import (
        ClosureContext as ClosureContext,
    )
    from .actors import (
        DefaultInterventionHandler as DefaultInterventionHandler,
    )
    from .actors import (
        DropMessage as DropMessage,
    )
    from .actors import (
        InterventionHandler as InterventionHandler,
    )
    from .actors import (
        MessageContext as MessageContext,
    )
    from .actors import (
        RoutedAgent as RoutedAgent,
    )
    from .actors import (
        event as event,
    )
    from .actors import (
        message_handler as message_handler,
    )
    from .actors import (
        rpc as rpc,
    )
    from .addresses import (
        AgentId as AgentId,
    )
    from .addresses import (
        AgentType as AgentType,
    )
    from .addresses import (
        DefaultSubscription as DefaultSubscription,
    )
    from .addresses import (
        DefaultTopicId as DefaultTopicId,
    )
    from .addresses import (
        MessageHandlerContext as MessageHandlerContext,
    )
    from .addresses import (
        Subscription as Subscription,
    )
    from .addresses import (
        SubscriptionInstantiationContext as SubscriptionInstantiationContext,
    )
    from .addresses import (
        TopicId as TopicId,
    )
    from .addresses import (
        TypePrefixSubscription as TypePrefixSubscription,
    )
    from .addresses import (
        TypeSubscription as TypeSubscription,
    )
    from .addresses import (
        default_subscription as default_subscription,
    )
    from .addresses import (
        type_subscription as type_subscription,
    )
    from .agents import (
        BaseChatAgent as BaseChatAgent,
    )
    from .agents import (
        UserProxyAgent as UserProxyAgent,
    )
    from .agents import (
        suspend as suspend,
    )
    from .assistant import AssistantAgent as AssistantAgent
    from .cancellation import CancellationToken as CancellationToken
    from .component import Component as Component
    from .conditions import (
        AndTerminationCondition as AndTerminationCondition,
    )
    from .conditions import (
        ExternalTermination as ExternalTermination,
    )
    from .conditions import (
        FunctionalTermination as FunctionalTermination,
    )
    from .conditions import (
        FunctionCallTermination as FunctionCallTermination,
    )
    from .conditions import (
        HandoffTermination as HandoffTermination,
    )
    from .conditions import (
        MaxMessageTermination as MaxMessageTermination,
    )
    from .conditions import (
        OrTerminationCondition as OrTerminationCondition,
    )
    from .conditions import (
        SourceMatchTermination as SourceMatchTermination,
    )
    from .conditions import (
        StopMessageTermination as StopMessageTermination,
    )
    from .conditions import (
        TerminationCondition as TerminationCondition,
    )
    from .conditions import (
        TextMentionTermination as TextMentionTermination,
    )
    from .conditions import (
        TextMessageTermination as TextMessageTermination,
    )
    from .conditions import (
        TimeoutTermination as TimeoutTermination,
    )
    from .conditions import (
        TokenUsageTermination as TokenUsageTermination,
    )
    from .errors import (
        AgentFailed as AgentFailed,
    )
    from .errors import (
        AlreadyRunning as AlreadyRunning,
    )
    from .errors import (
        AuthenticationError as AuthenticationError,
    )
    from .errors import (
        CantHandleException as CantHandleException,
    )
    from .errors import (
        ConfigError as ConfigError,
    )
    from .errors import (
        ConnectionFailed as ConnectionFailed,
    )
    from .errors import (
        DecodeError as DecodeError,
    )
    from .errors import (
        EncodeError as EncodeError,
    )
    from .errors import (
        IncompleteResponse as IncompleteResponse,
    )
    from .errors import (
        LimitReached as LimitReached,
    )
    from .errors import (
        MessageDroppedException as MessageDroppedException,
    )
    from .errors import (
        ModelError as ModelError,
    )
    from .errors import (
        ModelTimeout as ModelTimeout,
    )
    from .errors import (
        NotAccessibleError as NotAccessibleError,
    )
    from .errors import (
        ProtocolError as ProtocolError,
    )
    from .errors import (
        RateLimitError as RateLimitError,
    )
    from .errors import (
        RequestError as RequestError,
    )
    from .errors import (
        ResponseTooLarge as ResponseTooLarge,
    )
    from .errors import (
        RunDiverged as RunDiverged,
    )
    from .errors import (
        ServerError as ServerError,
    )
    from .errors import (
        StateError as StateError,
    )
    from .errors import (
        Suspended as Suspended,
    )
    from .errors import (
        TerminatedException as TerminatedException,
    )
    from .errors import (
        TinygenError as TinygenError,
    )
    from .errors import (
        ToolError as ToolError,
    )
    from .errors import (
        UndeliverableException as UndeliverableException,
    )
    from .journal import effect as effect
    from .memory import (
        ListMemory as ListMemory,
    )
    from .memory import (
        Memory as Memory,
    )
    from .memory import (
        MemoryMimeType as MemoryMimeType,
    )
    from .memory import (
        MemoryQueryResult as MemoryQueryResult,
    )
    from .memory import (
        UpdateContextResult as UpdateContextResult,
    )
    from .messages import (
        AgentEvent as AgentEvent,
    )
    from .messages import (
        AssistantMessage as AssistantMessage,
    )
    from .messages import (
        BaseAgentEvent as BaseAgentEvent,
    )
    from .messages import (
        BaseChatMessage as BaseChatMessage,
    )
    from .messages import (
        BaseMessage as BaseMessage,
    )
    from .messages import (
        BaseTextChatMessage as BaseTextChatMessage,
    )
    from .messages import (
        ChatCompletionTokenLogprob as ChatCompletionTokenLogprob,
    )
    from .messages import (
        ChatMessage as ChatMessage,
    )
    from .messages import (
        CodeBlock as CodeBlock,
    )
    from .messages import (
        CodeExecutionEvent as CodeExecutionEvent,
    )
    from .messages import (
        CodeGenerationEvent as CodeGenerationEvent,
    )
    from .messages import (
        CodeResult as CodeResult,
    )
    from .messages import (
        CreateResult as CreateResult,
    )
    from .messages import (
        FunctionCall as FunctionCall,
    )
    from .messages import (
        FunctionExecutionResult as FunctionExecutionResult,
    )
    from .messages import (
        FunctionExecutionResultMessage as FunctionExecutionResultMessage,
    )
    from .messages import (
        HandoffMessage as HandoffMessage,
    )
    from .messages import (
        Image as Image,
    )
    from .messages import (
        LLMMessage as LLMMessage,
    )
    from .messages import (
        MemoryContent as MemoryContent,
    )
    from .messages import (
        MemoryQueryEvent as MemoryQueryEvent,
    )
    from .messages import (
        ModelClientStreamingChunkEvent as ModelClientStreamingChunkEvent,
    )
    from .messages import (
        MultiModalMessage as MultiModalMessage,
    )
    from .messages import (
        Pending as Pending,
    )
    from .messages import (
        Record as Record,
    )
    from .messages import (
        RequestUsage as RequestUsage,
    )
    from .messages import (
        Response as Response,
    )
    from .messages import (
        SelectorEvent as SelectorEvent,
    )
    from .messages import (
        SelectSpeakerEvent as SelectSpeakerEvent,
    )
    from .messages import (
        StopMessage as StopMessage,
    )
    from .messages import (
        StructuredMessage as StructuredMessage,
    )
    from .messages import (
        SystemMessage as SystemMessage,
    )
    from .messages import (
        TaskResult as TaskResult,
    )
    from .messages import (
        TextMessage as TextMessage,
    )
    from .messages import (
        ThoughtEvent as ThoughtEvent,
    )
    from .messages import (
        ToolCallExecutionEvent as ToolCallExecutionEvent,
    )
    from .messages import (
        ToolCallRequestEvent as ToolCallRequestEvent,
    )
    from .messages import (
        ToolCallSummaryMessage as ToolCallSummaryMessage,
    )
    from .messages import (
        TopLogprob as TopLogprob,
    )
    from .messages import (
        UserInputRequestedEvent as UserInputRequestedEvent,
    )
    from .messages import (
        UserMessage as UserMessage,
    )
    from .model_context import (
        BufferedChatCompletionContext as BufferedChatCompletionContext,
    )
    from .model_context import (
        ChatCompletionContext as ChatCompletionContext,
    )
    from .model_context import (
        HeadAndTailChatCompletionContext as HeadAndTailChatCompletionContext,
    )
    from .model_context import (
        TokenLimitedChatCompletionContext as TokenLimitedChatCompletionContext,
    )
    from .model_context import (
        UnboundedChatCompletionContext as UnboundedChatCompletionContext,
    )
    from .models import (
        ChatCompletionClient as ChatCompletionClient,
    )
    from .models import (
        ModelInfo as ModelInfo,
    )
    from .models import (
        ToolSchema as ToolSchema,
    )
    from .models import (
        create_client as create_client,
    )
    from .models.openai import (
        AzureOpenAIChatCompletionClient as AzureOpenAIChatCompletionClient,
    )
    from .models.openai import (
        OpenAIChatCompletionClient as OpenAIChatCompletionClient,
    )
    from .models.replay import (
        Chunks as Chunks,
    )
    from .models.replay import (
        Delayed as Delayed,
    )
    from .models.replay import (
        ReplayChatCompletionClient as ReplayChatCompletionClient,
    )
    from .models.replay import (
        ReplayRequest as ReplayRequest,
    )
    from .run import (
        RunLimits as RunLimits,
    )
    from .run import (
        fan_out as fan_out,
    )
    from .runner import (
        RunHandle as RunHandle,
    )
    from .runner import (
        RunStream as RunStream,
    )
    from .runner import (
        TaskRunner as TaskRunner,
    )
    from .runtime import SingleThreadedAgentRuntime as SingleThreadedAgentRuntime
    from .teams import (
        BaseGroupChat as BaseGroupChat,
    )
    from .teams import (
        RoundRobinGroupChat as RoundRobinGroupChat,
    )
    from .telemetry import (
        Event as Event,
    )
    from .telemetry import (
        listen as listen,
    )
    from .toolbox import Handoff as Handoff
    from .tools import (
        BaseStreamTool as BaseStreamTool,
    )
    from .tools import (
        BaseTool as BaseTool,
    )
    from .tools import (
        BaseToolWithState as BaseToolWithState,
    )
    from .tools import (
        FunctionTool as FunctionTool,
    )
    from .tools import (
        ImageResultContent as ImageResultContent,
    )
    from .tools import (
        StaticStreamWorkbench as StaticStreamWorkbench,
    )
    from .tools import (
        StaticWorkbench as StaticWorkbench,
    )
    from .tools import (
        TextResultContent as TextResultContent,
    )
    from .tools import (
        Tool as Tool,
    )
    from .tools import (
        ToolOverride as ToolOverride,
    )
    from .tools import (
        ToolResult as ToolResult,
    )
    from .tools import (
        Workbench as Workbench,
    )
    from .ui import (
        Console as Console,
    )
    from .ui import (
        UserInputManager as UserInputManager,
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
