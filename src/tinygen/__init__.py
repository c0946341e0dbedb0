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
        AgentProxy as AgentProxy, AgentRuntime as AgentRuntime, BaseAgent as BaseAgent,
        DefaultInterventionHandler as DefaultInterventionHandler, DropMessage as DropMessage,
        InterventionHandler as InterventionHandler, MessageContext as MessageContext,
    )
    from .addresses import (
        AgentId as AgentId, AgentType as AgentType, DefaultSubscription as DefaultSubscription,
        DefaultTopicId as DefaultTopicId, MessageHandlerContext as MessageHandlerContext,
        Subscription as Subscription, SubscriptionInstantiationContext as SubscriptionInstantiationContext,
        TopicId as TopicId, TypePrefixSubscription as TypePrefixSubscription, TypeSubscription as TypeSubscription,
        default_subscription as default_subscription, type_subscription as type_subscription,
    )
    from .agents import (
        BaseChatAgent as BaseChatAgent, UserProxyAgent as UserProxyAgent, suspend as suspend,
    )
    from .assistant import (
        AssistantAgent as AssistantAgent,
    )
    from .blueprints import (
        ComponentModel as ComponentModel, allow_secrets as allow_secrets,
    )
    from .branches import (
        fan_out as fan_out,
    )
    from .cache import (
        CacheStore as CacheStore, InMemoryStore as InMemoryStore, RedisStore as RedisStore,
        SQLiteCacheStore as SQLiteCacheStore,
    )
    from .cancellation import (
        CancellationToken as CancellationToken,
    )
    from .code_executors import (
        CodeExecutor as CodeExecutor, CommandLineCodeResult as CommandLineCodeResult,
        LocalCommandLineCodeExecutor as LocalCommandLineCodeExecutor,
    )
    from .coder import (
        ApprovalFuncType as ApprovalFuncType, ApprovalRequest as ApprovalRequest,
        ApprovalResponse as ApprovalResponse, CodeExecutorAgent as CodeExecutorAgent,
    )
    from .component import (
        Component as Component, ComponentBase as ComponentBase, ComponentType as ComponentType,
    )
    from .component_names import (
        register_component as register_component,
    )
    from .conditions import (
        AndTerminationCondition as AndTerminationCondition, ExternalTermination as ExternalTermination,
        FunctionCallTermination as FunctionCallTermination, FunctionalTermination as FunctionalTermination,
        HandoffTermination as HandoffTermination, MaxMessageTermination as MaxMessageTermination,
        OrTerminationCondition as OrTerminationCondition, SourceMatchTermination as SourceMatchTermination,
        StopMessageTermination as StopMessageTermination, TerminationCondition as TerminationCondition,
        TextMentionTermination as TextMentionTermination, TextMessageTermination as TextMessageTermination,
        TimeoutTermination as TimeoutTermination, TokenUsageTermination as TokenUsageTermination,
    )
    from .conversable import (
        ConversableProxy as ConversableProxy,
    )
    from .digraph import (
        DiGraph as DiGraph, DiGraphBuilder as DiGraphBuilder, DiGraphEdge as DiGraphEdge, DiGraphNode as DiGraphNode,
    )
    from .errors import (
        AgentFailed as AgentFailed, AlreadyRunning as AlreadyRunning, AuthenticationError as AuthenticationError,
        CallCycle as CallCycle, CantHandleException as CantHandleException, ComponentError as ComponentError,
        ComponentTypeError as ComponentTypeError, ComponentVersionError as ComponentVersionError,
        ConfigError as ConfigError, ConnectionFailed as ConnectionFailed, DecodeError as DecodeError,
        EncodeError as EncodeError, IncompleteResponse as IncompleteResponse,
        InvalidToolArgumentsException as InvalidToolArgumentsException, LimitReached as LimitReached,
        MessageDroppedException as MessageDroppedException, MessageTimeout as MessageTimeout,
        ModelError as ModelError, ModelTimeout as ModelTimeout, NotAccessibleError as NotAccessibleError,
        Overloaded as Overloaded, ProtocolError as ProtocolError, RateLimitError as RateLimitError,
        RequestError as RequestError, ResponseTooLarge as ResponseTooLarge, RunDiverged as RunDiverged,
        RunStopped as RunStopped, ServerError as ServerError, StateError as StateError, Suspended as Suspended,
        TerminatedException as TerminatedException, TinygenError as TinygenError, ToolError as ToolError,
        ToolException as ToolException, ToolExecutionException as ToolExecutionException,
        ToolNotFoundException as ToolNotFoundException, UndeliverableException as UndeliverableException,
    )
    from .event_log import (
        EVENT_LOGGER_NAME as EVENT_LOGGER_NAME, TRACE_LOGGER_NAME as TRACE_LOGGER_NAME,
        AgentConstructionExceptionEvent as AgentConstructionExceptionEvent, DeliveryStage as DeliveryStage,
        LLMCallEvent as LLMCallEvent, LLMStreamEndEvent as LLMStreamEndEvent,
        LLMStreamStartEvent as LLMStreamStartEvent, LogEvent as LogEvent, LogEventReader as LogEventReader,
        MessageDroppedEvent as MessageDroppedEvent, MessageEvent as MessageEvent,
        MessageHandlerExceptionEvent as MessageHandlerExceptionEvent, MessageKind as MessageKind,
        ToolCallEvent as ToolCallEvent, log_events as log_events,
    )
    from .graph import (
        GraphFlow as GraphFlow,
    )
    from .journal import (
        effect as effect,
    )
    from .limits import (
        RunLimits as RunLimits,
    )
    from .magentic import (
        MagenticOneGroupChat as MagenticOneGroupChat,
    )
    from .memory import (
        ListMemory as ListMemory, Memory as Memory, MemoryMimeType as MemoryMimeType,
        MemoryQueryResult as MemoryQueryResult, Recalled as Recalled, UpdateContextResult as UpdateContextResult,
    )
    from .message_filter import (
        MessageFilterAgent as MessageFilterAgent, MessageFilterConfig as MessageFilterConfig,
        PerSourceFilter as PerSourceFilter,
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
        MultiModalMessage as MultiModalMessage, Pending as Pending, RequestUsage as RequestUsage,
        Response as Response, SelectSpeakerEvent as SelectSpeakerEvent, SelectorEvent as SelectorEvent,
        StopMessage as StopMessage, StructuredMessage as StructuredMessage, SystemMessage as SystemMessage,
        TaskResult as TaskResult, TextMessage as TextMessage, ThoughtChunk as ThoughtChunk,
        ThoughtEvent as ThoughtEvent, ToolCallExecutionEvent as ToolCallExecutionEvent,
        ToolCallRequestEvent as ToolCallRequestEvent, ToolCallSummaryMessage as ToolCallSummaryMessage,
        TopLogprob as TopLogprob, UserInputRequestedEvent as UserInputRequestedEvent, UserMessage as UserMessage,
        content_to_str as content_to_str, remove_images as remove_images,
    )
    from .model_context import (
        BufferedChatCompletionContext as BufferedChatCompletionContext,
        ChatCompletionContext as ChatCompletionContext, ChatCompletionContextState as ChatCompletionContextState,
        HeadAndTailChatCompletionContext as HeadAndTailChatCompletionContext,
        TokenLimitedChatCompletionContext as TokenLimitedChatCompletionContext,
        UnboundedChatCompletionContext as UnboundedChatCompletionContext,
    )
    from .models import (
        ChatCompletionClient as ChatCompletionClient, FinishReasons as FinishReasons, ModelInfo as ModelInfo,
        ParametersSchema as ParametersSchema, ToolSchema as ToolSchema, create_client as create_client,
    )
    from .models.anthropic import (
        AnthropicBedrockChatCompletionClient as AnthropicBedrockChatCompletionClient,
        AnthropicChatCompletionClient as AnthropicChatCompletionClient,
        AnthropicVertexChatCompletionClient as AnthropicVertexChatCompletionClient,
    )
    from .models.caching import (
        ChatCompletionCache as ChatCompletionCache,
    )
    from .models.families import (
        ModelFamily as ModelFamily, validate_model_info as validate_model_info,
    )
    from .models.faults import (
        FaultyClient as FaultyClient, FaultyHTTPClient as FaultyHTTPClient,
    )
    from .models.gemini import (
        GeminiChatCompletionClient as GeminiChatCompletionClient,
    )
    from .models.ollama import (
        OllamaChatCompletionClient as OllamaChatCompletionClient,
    )
    from .models.openai import (
        AzureOpenAIChatCompletionClient as AzureOpenAIChatCompletionClient,
        OpenAIChatCompletionClient as OpenAIChatCompletionClient,
    )
    from .models.pacing import (
        RateLimitedClient as RateLimitedClient, RateLimiter as RateLimiter,
    )
    from .models.prices import (
        PRICES as PRICES,
    )
    from .models.replay import (
        Chunks as Chunks, Delayed as Delayed, ReplayChatCompletionClient as ReplayChatCompletionClient,
        ReplayRequest as ReplayRequest,
    )
    from .models.responses import (
        OpenAIResponsesClient as OpenAIResponsesClient,
    )
    from .models.wrappers import (
        FallbackClient as FallbackClient, LoadBalancingClient as LoadBalancingClient,
    )
    from .monitoring import (
        DeadLetter as DeadLetter, MessageTrace as MessageTrace, RuntimeStatistics as RuntimeStatistics,
    )
    from .ported import (
        MessageFactory as MessageFactory, StructuredMessageFactory as StructuredMessageFactory,
        extract_json_from_str as extract_json_from_str,
    )
    from .records import (
        Record as Record,
    )
    from .routed import (
        ClosureAgent as ClosureAgent, ClosureContext as ClosureContext, RoutedAgent as RoutedAgent, event as event,
        message_handler as message_handler, rpc as rpc,
    )
    from .run import (
        run_scope as run_scope,
    )
    from .runner import (
        RunHandle as RunHandle, RunStream as RunStream, TaskRunner as TaskRunner,
    )
    from .runtime import (
        SingleThreadedAgentRuntime as SingleThreadedAgentRuntime,
    )
    from .selector import (
        SelectorGroupChat as SelectorGroupChat,
    )
    from .serialization import (
        JSON_DATA_CONTENT_TYPE as JSON_DATA_CONTENT_TYPE, MessageSerializer as MessageSerializer,
        SerializationRegistry as SerializationRegistry, UnknownPayload as UnknownPayload,
        try_get_known_serializers_for_type as try_get_known_serializers_for_type,
    )
    from .society import (
        SocietyOfMindAgent as SocietyOfMindAgent,
    )
    from .states import (
        AssistantAgentState as AssistantAgentState, BaseGroupChatManagerState as BaseGroupChatManagerState,
        BaseState as BaseState, ChatAgentContainerState as ChatAgentContainerState,
        MagenticOneOrchestratorState as MagenticOneOrchestratorState,
        RoundRobinManagerState as RoundRobinManagerState, SelectorManagerState as SelectorManagerState,
        SocietyOfMindAgentState as SocietyOfMindAgentState, SwarmManagerState as SwarmManagerState,
        TeamState as TeamState,
    )
    from .swarm import (
        Swarm as Swarm,
    )
    from .task_tools import (
        AgentTool as AgentTool, TeamTool as TeamTool,
    )
    from .teams import (
        BaseGroupChat as BaseGroupChat, Floor as Floor, RoundRobinGroupChat as RoundRobinGroupChat,
    )
    from .telemetry import (
        Event as Event, listen as listen,
    )
    from .timers import (
        Timer as Timer,
    )
    from .tool_agent import (
        ToolAgent as ToolAgent, tool_agent_caller_loop as tool_agent_caller_loop,
    )
    from .toolbox import (
        Handoff as Handoff,
    )
    from .tools import (
        BaseStreamTool as BaseStreamTool, BaseTool as BaseTool, BaseToolWithState as BaseToolWithState,
        FunctionTool as FunctionTool, ImageResultContent as ImageResultContent,
        StaticStreamWorkbench as StaticStreamWorkbench, StaticWorkbench as StaticWorkbench,
        StreamWorkbench as StreamWorkbench, TextResultContent as TextResultContent, Tool as Tool,
        ToolOverride as ToolOverride, ToolResult as ToolResult, Workbench as Workbench,
    )
    from .ui import (
        Console as Console, UserInputManager as UserInputManager,
    )
    from .usage import (
        PartUsage as PartUsage, RunUsage as RunUsage,
    )
else:
    _NAMES = {
        "actors": (
            "Agent AgentInstantiationContext AgentMetadata AgentProxy AgentRuntime BaseAgent "
            "DefaultInterventionHandler DropMessage InterventionHandler MessageContext"
        ),
        "addresses": (
            "AgentId AgentType DefaultSubscription DefaultTopicId MessageHandlerContext Subscription "
            "SubscriptionInstantiationContext TopicId TypePrefixSubscription TypeSubscription default_subscription "
            "type_subscription"
        ),
        "agents": "BaseChatAgent UserProxyAgent suspend",
        "assistant": "AssistantAgent",
        "blueprints": "ComponentModel allow_secrets",
        "branches": "fan_out",
        "cache": "CacheStore InMemoryStore RedisStore SQLiteCacheStore",
        "cancellation": "CancellationToken",
        "code_executors": "CodeExecutor CommandLineCodeResult LocalCommandLineCodeExecutor",
        "coder": "ApprovalFuncType ApprovalRequest ApprovalResponse CodeExecutorAgent",
        "component": "Component ComponentBase ComponentType",
        "component_names": "register_component",
        "conditions": (
            "AndTerminationCondition ExternalTermination FunctionCallTermination FunctionalTermination "
            "HandoffTermination MaxMessageTermination OrTerminationCondition SourceMatchTermination "
            "StopMessageTermination TerminationCondition TextMentionTermination TextMessageTermination "
            "TimeoutTermination TokenUsageTermination"
        ),
        "conversable": "ConversableProxy",
        "digraph": "DiGraph DiGraphBuilder DiGraphEdge DiGraphNode",
        "errors": (
            "AgentFailed AlreadyRunning AuthenticationError CallCycle CantHandleException ComponentError "
            "ComponentTypeError ComponentVersionError ConfigError ConnectionFailed DecodeError EncodeError "
            "IncompleteResponse InvalidToolArgumentsException LimitReached MessageDroppedException MessageTimeout "
            "ModelError ModelTimeout NotAccessibleError Overloaded ProtocolError RateLimitError RequestError "
            "ResponseTooLarge RunDiverged RunStopped ServerError StateError Suspended TerminatedException "
            "TinygenError ToolError ToolException ToolExecutionException ToolNotFoundException UndeliverableException"
        ),
        "event_log": (
            "EVENT_LOGGER_NAME TRACE_LOGGER_NAME AgentConstructionExceptionEvent DeliveryStage LLMCallEvent "
            "LLMStreamEndEvent LLMStreamStartEvent LogEvent LogEventReader MessageDroppedEvent MessageEvent "
            "MessageHandlerExceptionEvent MessageKind ToolCallEvent log_events"
        ),
        "graph": "GraphFlow",
        "journal": "effect",
        "limits": "RunLimits",
        "magentic": "MagenticOneGroupChat",
        "memory": "ListMemory Memory MemoryMimeType MemoryQueryResult Recalled UpdateContextResult",
        "message_filter": "MessageFilterAgent MessageFilterConfig PerSourceFilter",
        "messages": (
            "AgentEvent AssistantMessage BaseAgentEvent BaseChatMessage BaseMessage BaseTextChatMessage "
            "ChatCompletionTokenLogprob ChatMessage CodeBlock CodeExecutionEvent CodeGenerationEvent CodeResult "
            "CreateResult FunctionCall FunctionExecutionResult FunctionExecutionResultMessage HandoffMessage Image "
            "LLMMessage MemoryContent MemoryQueryEvent ModelClientStreamingChunkEvent MultiModalMessage Pending "
            "RequestUsage Response SelectSpeakerEvent SelectorEvent StopMessage StructuredMessage SystemMessage "
            "TaskResult TextMessage ThoughtChunk ThoughtEvent ToolCallExecutionEvent ToolCallRequestEvent "
            "ToolCallSummaryMessage TopLogprob UserInputRequestedEvent UserMessage content_to_str remove_images"
        ),
        "model_context": (
            "BufferedChatCompletionContext ChatCompletionContext ChatCompletionContextState "
            "HeadAndTailChatCompletionContext TokenLimitedChatCompletionContext UnboundedChatCompletionContext"
        ),
        "models": "ChatCompletionClient FinishReasons ModelInfo ParametersSchema ToolSchema create_client",
        "models.anthropic": (
            "AnthropicBedrockChatCompletionClient AnthropicChatCompletionClient AnthropicVertexChatCompletionClient"
        ),
        "models.caching": "ChatCompletionCache",
        "models.families": "ModelFamily validate_model_info",
        "models.faults": "FaultyClient FaultyHTTPClient",
        "models.gemini": "GeminiChatCompletionClient",
        "models.ollama": "OllamaChatCompletionClient",
        "models.openai": "AzureOpenAIChatCompletionClient OpenAIChatCompletionClient",
        "models.pacing": "RateLimitedClient RateLimiter",
        "models.prices": "PRICES",
        "models.replay": "Chunks Delayed ReplayChatCompletionClient ReplayRequest",
        "models.responses": "OpenAIResponsesClient",
        "models.wrappers": "FallbackClient LoadBalancingClient",
        "monitoring": "DeadLetter MessageTrace RuntimeStatistics",
        "ported": "MessageFactory StructuredMessageFactory extract_json_from_str",
        "records": "Record",
        "routed": "ClosureAgent ClosureContext RoutedAgent event message_handler rpc",
        "run": "run_scope",
        "runner": "RunHandle RunStream TaskRunner",
        "runtime": "SingleThreadedAgentRuntime",
        "selector": "SelectorGroupChat",
        "serialization": (
            "JSON_DATA_CONTENT_TYPE MessageSerializer SerializationRegistry UnknownPayload "
            "try_get_known_serializers_for_type"
        ),
        "society": "SocietyOfMindAgent",
        "states": (
            "AssistantAgentState BaseGroupChatManagerState BaseState ChatAgentContainerState "
            "MagenticOneOrchestratorState RoundRobinManagerState SelectorManagerState SocietyOfMindAgentState "
            "SwarmManagerState TeamState"
        ),
        "swarm": "Swarm",
        "task_tools": "AgentTool TeamTool",
        "teams": "BaseGroupChat Floor RoundRobinGroupChat",
        "telemetry": "Event listen",
        "timers": "Timer",
        "tool_agent": "ToolAgent tool_agent_caller_loop",
        "toolbox": "Handoff",
        "tools": (
            "BaseStreamTool BaseTool BaseToolWithState FunctionTool ImageResultContent StaticStreamWorkbench "
            "StaticWorkbench StreamWorkbench TextResultContent Tool ToolOverride ToolResult Workbench"
        ),
        "ui": "Console UserInputManager",
        "usage": "PartUsage RunUsage",
    }
    _HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

    __all__ = ["__version__", *_HOME]

    def __getattr__(name):
        module = _HOME.get(name)
        if module is None:
            raise _missing(name)
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
        return value

    def _missing(name):
        """The error for a name that is not here: an ImportError where an import asks for it, whose words are shown."""
        import sys
        from importlib.machinery import PathFinder

        text = f"module {__name__!r} has no attribute {name!r}"
        if name.startswith("_") or PathFinder.find_spec(f"{__name__}.{name}", __path__):  # a module to be loaded
            return AttributeError(text)
        from .migrate import advice

        hint = advice(name)
        if hint and sys._getframe(2).f_code.co_name == "_handle_fromlist":  # of importlib
            return ImportError(f"cannot import name {name!r} from {__name__!r}{hint}", name=name, path=__file__)
        return AttributeError(f"{text}{hint}")

    def __dir__():
        return sorted({*globals(), *__all__})
