package byoc;

import byoc.workers.RequestQueue;
import byoc.workers.Workers;
import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.util.Connector;
import com.amazonaws.ml.mms.util.ServerGroups;
import io.netty.bootstrap.ServerBootstrap;
import io.netty.channel.Channel;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelOption;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.handler.flow.FlowControlHandler;
import io.netty.handler.timeout.WriteTimeoutHandler;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.net.InetSocketAddress;
import org.apache.logging.log4j.util.StackLocator;

/**
 * multi-model-server's configuration, worker processes and protocol, behind a {@link RequestFilter} and queues of our
 * own. Its own main class is not used, because it always answers /ping with 200, offers its management API,
 * computes requests whose callers have gone, and has no way to be drained.
 */
public final class FrontEnd {
    static final String MODEL = "model"; // the name of the only one
    private static final int LINE_BYTES = 4096;
    private static final int HEADER_BYTES = 8192;
    private static final int CHUNK_BYTES = 65536; // of a body that is handed on at a time

    private FrontEnd() {}

    public static void main(String[] args) {
        silenceLogging();
        try {
            ConfigManager.Arguments arguments = new ConfigManager.Arguments();
            arguments.setMmsConfigFile(args[0]);
            ConfigManager.init(arguments);
            ConfigManager config = ConfigManager.getInstance();
            config.validateConfigurations();
            Settings settings = Settings.read(config.getProperty("byoc", ""));
            ServerGroups groups = new ServerGroups(config);
            Health.settings = settings;
            int capacity = settings.workers + settings.queueSize;
            Health.workers = new Workers(groups.getChildGroup(),
                    () -> new RequestQueue(capacity, settings.batch, settings.memory));
            if (!settings.multiModel) {
                Health.workers.start(MODEL, settings.modelDir);
            }
            listen(config.getListener(false), groups, settings.timeoutSeconds);
            Supervisor.listen(System.in, System.getProperty("byoc.reports"));
        } catch (Throwable error) {
            System.out.println("The front end could not start: " + error);
            Runtime.getRuntime().halt(1);
        }
        // The server's threads are no daemons: the program runs on until its supervisor ends it.
    }

    /** log4j prints a warning that it is slow on this version of Java, not in the log's format; it is not. */
    private static void silenceLogging() {
        PrintStream out = System.out;
        System.setOut(new PrintStream(new ByteArrayOutputStream()));
        StackLocator.getInstance();
        System.setOut(out);
    }

    private static void listen(Connector connector, ServerGroups groups, int seconds) throws InterruptedException {
        new ServerBootstrap()
                .group(groups.getServerGroup(), groups.getChildGroup())
                .channel(connector.getServerChannel())
                .option(ChannelOption.SO_BACKLOG, 1024)
                .option(ChannelOption.SO_REUSEADDR, true)
                .childOption(ChannelOption.SO_KEEPALIVE, true)
                .childOption(ChannelOption.ALLOW_HALF_CLOSURE, true) // who sends no more may wait for an answer
                .childHandler(
                        new ChannelInitializer<Channel>() {
                            @Override
                            protected void initChannel(Channel channel) {
                                channel.pipeline().addLast(
                                        new Framing(seconds),
                                        new HttpServerCodec(LINE_BYTES, HEADER_BYTES, CHUNK_BYTES),
                                        new FlowControlHandler(),
                                        new WriteTimeoutHandler(seconds),
                                        new RequestFilter());
                            }
                        })
                .bind(new InetSocketAddress(((InetSocketAddress) connector.getSocketAddress()).getPort())) // IPv6, too
                .sync();
    }
}
